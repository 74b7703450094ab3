"""Provides the model of human play and the positions, and measures how well it predicts them.

Inputs:
    PGN files, or nothing where the model plays against itself

Outputs:
    results/{study}/models/{model}/                     config.json, model.safetensors; trained here: training.parquet
    results/{study}/models/{model}.accuracy.parquet     by rating bin of the player and told bin
    results/{study}/games/positions.parquet             one row per position, seen by the player to move
    results/{study}/games/positions.json                what became of the games, where they are read
"""

if STUDY.positions.path:

    rule read_games:
        input:
            games=STUDY.positions.paths,
            test=STUDY.positions.test,
        output:
            positions=POSITIONS,
            counts="results/{study}/games/positions.json",
        log:
            "results/{study}/logs/read_games.log",
        benchmark:
            "results/{study}/benchmarks/read_games.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 2
        params:
            settings=settings("positions", "games"),
            files=lambda wildcards, input: [
                *repeated("--games", input.games),
                *repeated("--test", input.test),
            ],
        shell:
            "saeflow chess read"
            " {params.files:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --output {output.positions:q}"
            " --counts {output.counts:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"

else:

    rule play_games:
        input:
            **player_inputs(),
        output:
            POSITIONS,
        log:
            "results/{study}/logs/play_games.log",
        benchmark:
            "results/{study}/benchmarks/play_games.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        resources:
            gpu=1,
        params:
            settings=settings("positions", "self_play"),
            seed=STUDY.seed,
        shell:
            "saeflow chess play"
            " --model {input.model:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --seed {params.seed:q}"
            " --output {output:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"


if STUDY.model.train:

    rule train_player:
        input:
            POSITIONS,
        output:
            folder=directory("results/{study}/models/{model}"),
            checksums="results/{study}/models/{model}.checksums.json",
        log:
            "results/{study}/logs/train_player/{model}.log",
        benchmark:
            "results/{study}/benchmarks/train_player/{model}.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 2
        resources:
            gpu=1,
        params:
            shape=settings("model", "shape"),
            settings=settings("model", "train"),
            seed=STUDY.seed,
            checkpoint="results/{study}/checkpoints/models/{model}.pt",
        shell:
            "saeflow chess train"
            " --positions {input:q}"
            " --shape @<(printf %s {params.shape:q})"
            " --settings @<(printf %s {params.settings:q})"
            " --seed {params.seed:q}"
            " --checkpoint {params.checkpoint:q}"
            " --output {output.folder:q}"
            " --checksums {output.checksums:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"

else:

    rule provide_player:
        input:
            FLOW.path_at("model", "path"),
        output:
            folder=directory("results/{study}/models/{model}"),
            checksums="results/{study}/models/{model}.checksums.json",
        log:
            "results/{study}/logs/provide_player/{model}.log",
        benchmark:
            "results/{study}/benchmarks/provide_player/{model}.jsonl"
        localrule: True
        conda:
            "../envs/default.yaml"
        params:
            settings=settings("model"),
        shell:
            "saeflow chess provide"
            " --settings @<(printf %s {params.settings:q})"
            " --output {output.folder:q}"
            " --checksums {output.checksums:q}"
            " > {log:q} 2>&1"


rule measure_player:
    input:
        **player_inputs(),
        positions=POSITIONS,
    output:
        "results/{study}/models/{model}.accuracy.parquet",
    log:
        "results/{study}/logs/measure_player/{model}.log",
    benchmark:
        "results/{study}/benchmarks/measure_player/{model}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("accuracy"),
        seed=STUDY.seed,
    shell:
        "saeflow chess measure"
        " --model {input.model:q}"
        " --positions {input.positions:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
