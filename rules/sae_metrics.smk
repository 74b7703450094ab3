"""Measures SAEs of a language model on held-out text.

Inputs:
    results/{study}/corpus/eval.safetensors
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/

Outputs:
    results/{study}/saes/{sae}/metrics.json
    results/{study}/saes/{sae}/recovery.parquet                     planted features, on the corpus `tales`
    results/{study}/saes/{sae}/sources.parquet                      of a crosscoder, in place of it: latents and sources
    results/{study}/saes/summary.parquet, summary.csv               all SAEs; seeds pooled
"""


rule evaluate_sae:
    input:
        model=lambda wildcards: FLOW.read_models(wildcards.sae),
        checksums=lambda wildcards: FLOW.read_models(wildcards.sae, ".checksums.json"),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        metrics="results/{study}/saes/{sae}/metrics.json",
        recovery="results/{study}/saes/{sae}/recovery.parquet",
    log:
        "results/{study}/logs/evaluate_sae/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/evaluate_sae/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(STUDY.saes_of("sae", "transcoder")),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=lambda wildcards: STUDY.hook_of(wildcards.sae),
        settings=settings("activations"),
        cached=lambda wildcards: repeated("--cached", FLOW.cached_hooks(wildcards.sae)),
        dtype=STUDY.model.dtype,
    shell:
        "saeflow sae evaluate"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --metrics {output.metrics:q}"
        " --recovery {output.recovery:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule evaluate_crosscoder:
    input:
        models=lambda wildcards: FLOW.read_models(wildcards.sae),
        checksums=lambda wildcards: FLOW.read_models(wildcards.sae, ".checksums.json"),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        metrics="results/{study}/saes/{sae}/metrics.json",
        sources="results/{study}/saes/{sae}/sources.parquet",
    log:
        "results/{study}/logs/evaluate_crosscoder/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/evaluate_crosscoder/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(STUDY.saes_of("crosscoder")),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        models=lambda wildcards, input: repeated("--model", input.models),
        settings=settings("activations"),
        cached=repeated("--cached", [":".join(place) for place in FLOW.cached_places()]),
        dtype=STUDY.model.dtype,
    shell:
        "saeflow sae evaluate-crosscoder"
        " {params.models:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --metrics {output.metrics:q}"
        " --sources {output.sources:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule evaluate_difference:
    input:
        models=lambda wildcards: FLOW.read_models(wildcards.sae),
        checksums=lambda wildcards: FLOW.read_models(wildcards.sae, ".checksums.json"),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        metrics="results/{study}/saes/{sae}/metrics.json",
    log:
        "results/{study}/logs/evaluate_difference/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/evaluate_difference/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(STUDY.saes_of("difference")),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        models=lambda wildcards, input: repeated("--model", input.models),
        settings=settings("activations"),
        cached=repeated("--cached", [":".join(place) for place in FLOW.cached_places()]),
        dtype=STUDY.model.dtype,
    shell:
        "saeflow sae evaluate-crosscoder"
        " {params.models:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --metrics {output.metrics:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule summarise_saes:
    input:
        collect("results/{{study}}/saes/{sae}/metrics.json", sae=STUDY.saes),
    output:
        table="results/{study}/saes/summary.parquet",
        csv="results/{study}/saes/summary.csv",
    log:
        "results/{study}/logs/summarise_saes.log",
    benchmark:
        "results/{study}/benchmarks/summarise_saes.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        saes=given(FLOW.sae_descriptions()),
    shell:
        "saeflow sae summarise {input:q}"
        " --saes @<(printf %s {params.saes:q})"
        " --output {output.table:q}"
        " > {log:q} 2>&1"
