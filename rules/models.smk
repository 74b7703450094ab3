"""Provides the language models and measures them.

Inputs:
    results/{study}/corpus/model.safetensors    for a model trained here
    the model that comes with saeflow, where a study would train the same
    results/{study}/corpus/eval.safetensors
    a .gguf file that the config names
    a file of pairs that a model is tuned on

Outputs:
    results/{study}/models/{model}/              a Hugging Face checkpoint, or model.json that points at one
    results/{study}/models/{model}.checksums.json
    results/{study}/models/{model}.metrics.json
    results/{study}/models/{model}.tuning.parquet    of a model that is tuned here: what it changed
"""

from saeflow.config.embedded import embedded_digest, is_embedded

PROVIDED = [name for name, m in STUDY.all_models.items() if is_embedded(STUDY, m)]


rule train_model:
    input:
        "results/{study}/corpus/model.safetensors",
    output:
        folder=directory("results/{study}/models/{model}"),
        checksums="results/{study}/models/{model}.checksums.json",
    log:
        "results/{study}/logs/train_model/{model}.log",
    benchmark:
        "results/{study}/benchmarks/train_model/{model}.jsonl"
    wildcard_constraints:
        model=one_of(
            name
            for name, m in STUDY.all_models.items()
            if m.train and name not in PROVIDED
        ),
    conda:
        "../envs/default.yaml"
    threads: 2
    resources:
        gpu=1,
    params:
        settings=settings("all_models", "{model}", "train"),
        seed=STUDY.seed,
        checkpoint="results/{study}/checkpoints/models/{model}.pt",
    shell:
        "saeflow model train"
        " --corpus {input:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --checkpoint {params.checkpoint:q}"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule provide_model:
    output:
        folder=directory("results/{study}/models/{model}"),
        checksums="results/{study}/models/{model}.checksums.json",
    log:
        "results/{study}/logs/provide_model/{model}.log",
    benchmark:
        "results/{study}/benchmarks/provide_model/{model}.jsonl"
    wildcard_constraints:
        model=one_of(PROVIDED),
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        held=embedded_digest(),
    shell:
        "saeflow model provide"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " > {log:q} 2>&1"


rule link_model:
    output:
        folder=directory("results/{study}/models/{model}"),
        checksums="results/{study}/models/{model}.checksums.json",
    log:
        "results/{study}/logs/link_model/{model}.log",
    benchmark:
        "results/{study}/benchmarks/link_model/{model}.jsonl"
    wildcard_constraints:
        model=one_of(
            name for name, m in STUDY.all_models.items() if m.path and not m.is_gguf
        ),
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        path=lambda wildcards: STUDY.all_models[wildcards.model].path,
    shell:
        "saeflow model link"
        " --path {params.path:q}"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " > {log:q} 2>&1"


rule convert_model:
    input:
        FLOW.path_at("all_models", "{model}", "path"),
    output:
        folder=directory("results/{study}/models/{model}"),
        checksums="results/{study}/models/{model}.checksums.json",
    log:
        "results/{study}/logs/convert_model/{model}.log",
    benchmark:
        "results/{study}/benchmarks/convert_model/{model}.jsonl"
    wildcard_constraints:
        model=one_of(name for name, m in STUDY.all_models.items() if m.is_gguf),
    conda:
        "../envs/default.yaml"
    threads: 1
    shell:
        "saeflow model convert"
        " --path {input:q}"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " > {log:q} 2>&1"


rule tune_model:
    input:
        base=FLOW.copied(),
        checksums=FLOW.copied(".checksums.json"),
    output:
        folder=directory("results/{study}/models/{model}"),
        checksums="results/{study}/models/{model}.checksums.json",
    log:
        "results/{study}/logs/tune_model/{model}.log",
    benchmark:
        "results/{study}/benchmarks/tune_model/{model}.jsonl"
    wildcard_constraints:
        model=one_of(STUDY.tuned_models),
    conda:
        "../envs/default.yaml"
    threads: 2
    resources:
        gpu=1,
    params:
        pairs=FLOW.pairs,
        said=FLOW.pairs_said,
        settings=settings("all_models", "{model}", "tune"),
        seed=STUDY.seed,
        checkpoint="results/{study}/checkpoints/models/{model}.pt",
    shell:
        "saeflow model tune"
        " --base {input.base:q}"
        " --pairs {params.pairs:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --checkpoint {params.checkpoint:q}"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule compare_tuned_model:
    input:
        **FLOW.model_inputs("models/{model}"),
        base=FLOW.copied(),
        base_checksums=FLOW.copied(".checksums.json"),
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        "results/{study}/models/{model}.tuning.parquet",
    log:
        "results/{study}/logs/compare_tuned_model/{model}.log",
    benchmark:
        "results/{study}/benchmarks/compare_tuned_model/{model}.jsonl"
    wildcard_constraints:
        model=one_of(STUDY.tuned_models),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        pairs=FLOW.pairs,
        said=FLOW.pairs_said,
        settings=settings("all_models", "{model}", "tune"),
        seed=STUDY.seed,
        dtype=STUDY.model.dtype,
    shell:
        "saeflow model compare"
        " --base {input.base:q}"
        " --model {input.model:q}"
        " --pairs {params.pairs:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule evaluate_model:
    input:
        **FLOW.model_inputs("models/{model}"),
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        "results/{study}/models/{model}.metrics.json",
    log:
        "results/{study}/logs/evaluate_model/{model}.log",
    benchmark:
        "results/{study}/benchmarks/evaluate_model/{model}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        dtype=STUDY.model.dtype,
        kind=STUDY.corpus.kind,
    shell:
        "saeflow model evaluate"
        " --model {input.model:q}"
        " --corpus {input.corpus:q}"
        " --kind {params.kind:q}"
        " --dtype {params.dtype:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
