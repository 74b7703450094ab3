"""Trains the player further on blunders, and measures what it learned.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/blunders/blunders.parquet
    results/{study}/models/{model}/

Outputs:
    results/{study}/models/{model}-tuned/           the model, trained further on positions with blunders
    results/{study}/fine_tune/accuracy.parquet      its accuracy before and after, by rating bin
"""


rule tune_player:
    input:
        **player_inputs(),
        positions=POSITIONS,
        blunders="results/{study}/blunders/blunders.parquet",
    output:
        folder=directory("results/{study}/models/{model}-tuned"),
        checksums="results/{study}/models/{model}-tuned.checksums.json",
    log:
        "results/{study}/logs/tune_player/{model}.log",
    benchmark:
        "results/{study}/benchmarks/tune_player/{model}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 2
    resources:
        gpu=1,
    params:
        settings=settings("fine_tune"),
        seed=STUDY.seed,
        checkpoint="results/{study}/checkpoints/models/{model}-tuned.pt",
    shell:
        "saeflow chess tune"
        " --model {input.model:q}"
        " --positions {input.positions:q}"
        " --blunders {input.blunders:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --checkpoint {params.checkpoint:q}"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule measure_tuning:
    input:
        **player_inputs(),
        **player_inputs("tuned", "-tuned"),
        positions=POSITIONS,
        blunders="results/{study}/blunders/blunders.parquet",
    output:
        "results/{study}/fine_tune/accuracy.parquet",
    log:
        "results/{study}/logs/measure_tuning.log",
    benchmark:
        "results/{study}/benchmarks/measure_tuning.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("fine_tune"),
        accuracy=settings("accuracy"),
        seed=STUDY.seed,
    shell:
        "saeflow chess measure-tuning"
        " --model {input.model:q}"
        " --tuned {input.tuned:q}"
        " --positions {input.positions:q}"
        " --blunders {input.blunders:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --accuracy @<(printf %s {params.accuracy:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
