"""Vouches for caches of activations, whatever they are of.

Inputs:
    results/{study}/activations/{model}/{hook}/shard-{shard}.parquet

Outputs:
    results/{study}/activations/{model}/{hook}/manifest.json
"""


rule gather_activations:
    input:
        FLOW.shards,
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
        "saeflow activations gather {input:q} --output {output:q} > {log:q} 2>&1"
