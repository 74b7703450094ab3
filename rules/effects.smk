"""Measures what steering vectors do to every latent, in blocks of vectors.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/corpus/eval.safetensors
    results/{study}/activations/{model}/{hook}/manifest.json
    the file that effects.vectors.path names

Outputs:
    results/{study}/effects/{sae}/baseline.safetensors
    results/{study}/effects/{sae}/shards/block-{block}.safetensors
    results/{study}/effects/{sae}/effects.h5
"""


rule measure_baseline:
    input:
        **model_inputs(MODEL),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/eval.safetensors",
        manifest=artifact(CACHE),
    output:
        "results/{study}/effects/{sae}/baseline.safetensors",
    log:
        "results/{study}/logs/measure_baseline/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/measure_baseline/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings(
            "effects", without=("vectors", "block_size", "samples", "dtype")
        ),
        hook=STUDY.hook,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow effects baseline"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --manifest {input.manifest:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule measure_effects:
    input:
        **model_inputs(MODEL),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/eval.safetensors",
        manifest=artifact(CACHE),
        baseline="results/{study}/effects/{sae}/baseline.safetensors",
        source=vector_source,
    output:
        "results/{study}/effects/{sae}/shards/block-{block}.safetensors",
    log:
        "results/{study}/logs/measure_effects/{sae}.{block}.log",
    benchmark:
        "results/{study}/benchmarks/measure_effects/{sae}.{block}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("effects", without=("baseline_samples", "dtype")),
        hook=STUDY.hook,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow effects measure"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --manifest {input.manifest:q}"
        " --baseline {input.baseline:q}"
        " --source {input.source:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --block {wildcards.block:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule merge_effects:
    input:
        effect_blocks,
    output:
        "results/{study}/effects/{sae}/effects.h5",
    log:
        "results/{study}/logs/merge_effects/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/merge_effects/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        dtype=STUDY.effects.dtype,
    shell:
        "saeflow effects merge {input:q}"
        " --dtype {params.dtype:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"
