"""Caches the model's activations at the study's hooks, in shards.

Inputs:
    results/{study}/models/{model}/
    results/{study}/corpus/sae.safetensors

Outputs:
    results/{study}/activations/{model}/{hook}/shard-{shard}.parquet
    results/{study}/activations/{model}/{hook}/manifest.json
"""


rule cache_activations:
    input:
        model=artifact("models/{model}"),
        corpus="results/{study}/corpus/sae.safetensors",
    output:
        [
            f"results/{{study}}/activations/{{model}}/{hook}/shard-{{shard}}.{{suffix}}"
            for hook in STUDY.hooks
        ],
    log:
        "results/{study}/logs/cache_activations/{model}.{shard}.{suffix}.log",
    benchmark:
        "results/{study}/benchmarks/cache_activations/{model}.{shard}.{suffix}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("activations", without=["hooks"]),
        hooks=hook_options,
        dtype=STUDY.model.dtype,
    shell:
        "saeflow activations cache {output}"
        " --model {input.model}"
        " --corpus {input.corpus}"
        " {params.hooks}"
        " --settings {params.settings:q}"
        " --dtype {params.dtype}"
        " --shard {wildcards.shard}"
        " --threads {threads}"
        " > {log} 2>&1"


rule gather_activations:
    input:
        shards,
    output:
        "results/{study}/activations/{model}/{hook}/manifest.json",
    log:
        "results/{study}/logs/gather_activations/{model}.{hook}.log",
    benchmark:
        "results/{study}/benchmarks/gather_activations/{model}.{hook}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    shell:
        "saeflow activations gather {input} --output {output} > {log} 2>&1"
