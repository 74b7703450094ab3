"""Asks an engine for best moves and blunders, and trains the model of human play further on blunders.

Included where the study has a section `engine`; the fine-tuning where it has `fine_tune`, too.

Inputs:
    results/{study}/chess/positions.parquet
    results/{study}/chess/transitions.parquet
    results/{study}/models/{model}/

Outputs:
    results/{study}/chess/engine/part-{part}.parquet    what an engine says of positions and the moves that were played
    results/{study}/chess/engine.parquet                the same, all parts
    results/{study}/chess/blunders.parquet              moves that lose much
    results/{study}/models/{model}-tuned/               the model, trained further on positions with blunders
    results/{study}/chess/fine_tuning.parquet           its accuracy before and after, by rating bin
"""


rule evaluate_positions:
    input:
        POSITIONS,
    output:
        "results/{study}/chess/engine/part-{part}.parquet",
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
        settings=settings("engine", without=["blunder"]),
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
            f"results/{{study}}/chess/engine/part-{part}.parquet"
            for part in range(STUDY.engine.jobs)
        ],
    output:
        "results/{study}/chess/engine.parquet",
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


rule find_blunders:
    input:
        evaluations="results/{study}/chess/engine.parquet",
        transitions="results/{study}/chess/transitions.parquet",
    output:
        "results/{study}/chess/blunders.parquet",
    log:
        "results/{study}/logs/find_blunders.log",
    benchmark:
        "results/{study}/benchmarks/find_blunders.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings(
            "engine", only=["command", "depth", "nodes", "hash", "blunder"]
        ),
    shell:
        "saeflow chess blunders"
        " --evaluations {input.evaluations:q}"
        " --transitions {input.transitions:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --output {output:q}"
        " > {log:q} 2>&1"


if STUDY.fine_tune:

    rule tune_player:
        input:
            **player_inputs(),
            positions=POSITIONS,
            blunders="results/{study}/chess/blunders.parquet",
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
            blunders="results/{study}/chess/blunders.parquet",
        output:
            "results/{study}/chess/fine_tuning.parquet",
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
