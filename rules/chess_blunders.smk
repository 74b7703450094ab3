"""Finds moves that lose much.

Inputs:
    results/{study}/engine/evaluations.parquet
    results/{study}/transitions/transitions.parquet

Outputs:
    results/{study}/blunders/blunders.parquet
"""


rule find_blunders:
    input:
        evaluations="results/{study}/engine/evaluations.parquet",
        transitions="results/{study}/transitions/transitions.parquet",
    output:
        "results/{study}/blunders/blunders.parquet",
    log:
        "results/{study}/logs/find_blunders.log",
    benchmark:
        "results/{study}/benchmarks/find_blunders.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("blunders"),
        search=settings("engine"),
    shell:
        "saeflow chess blunders"
        " --evaluations {input.evaluations:q}"
        " --transitions {input.transitions:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --search @<(printf %s {params.search:q})"
        " --output {output:q}"
        " > {log:q} 2>&1"
