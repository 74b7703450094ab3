"""Finds the positions that the player solves from some rating upwards.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/models/{model}/

Outputs:
    results/{study}/transitions/transitions.parquet
"""


rule find_transitions:
    input:
        **player_inputs(),
        positions=POSITIONS,
        engine=engine_moves("transitions"),
    output:
        "results/{study}/transitions/transitions.parquet",
    log:
        "results/{study}/logs/find_transitions.log",
    benchmark:
        "results/{study}/benchmarks/find_transitions.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        engine=engine_option,
        settings=settings("transitions"),
        seed=STUDY.seed,
    shell:
        "saeflow chess transitions"
        " --model {input.model:q}"
        " --positions {input.positions:q}"
        " --split eval"
        " {params.engine:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
