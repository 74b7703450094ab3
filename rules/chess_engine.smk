"""Asks an engine for best moves, and what the moves that were played lose.

Inputs:
    results/{study}/games/positions.parquet

Outputs:
    results/{study}/engine/part-{part}.parquet      what an engine says of positions and the moves that were played
    results/{study}/engine/evaluations.parquet      the same, all parts
"""


rule evaluate_positions:
    input:
        POSITIONS,
    output:
        "results/{study}/engine/part-{part}.parquet",
    log:
        "results/{study}/logs/evaluate_positions/{part}.log",
    benchmark:
        "results/{study}/benchmarks/evaluate_positions/{part}.jsonl"
    wildcard_constraints:
        part=r"\d+",
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("engine"),
        seed=STUDY.seed,
    shell:
        "saeflow chess evaluate"
        " --positions {input:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --part {wildcards.part:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"


rule gather_evaluations:
    input:
        [
            f"results/{{study}}/engine/part-{part}.parquet"
            for part in range(STUDY.engine.jobs)
        ],
    output:
        "results/{study}/engine/evaluations.parquet",
    log:
        "results/{study}/logs/gather_evaluations.log",
    benchmark:
        "results/{study}/benchmarks/gather_evaluations.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    shell:
        "saeflow chess gather-evaluations {input:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"
