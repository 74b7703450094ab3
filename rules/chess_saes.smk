"""Caches the player's activations over positions, and measures the SAEs that read them.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/

Outputs:
    results/{study}/activations/{model}/{hook}/shard-{shard}.parquet
    results/{study}/saes/{sae}/metrics.json
"""


rule cache_board_activations:
    input:
        **player_inputs(),
        positions=POSITIONS,
    output:
        [
            f"results/{{study}}/activations/{{model}}/{hook}/shard-{{shard}}.{{suffix}}"
            for hook in STUDY.hooks
        ],
    log:
        "results/{study}/logs/cache_board_activations/{model}.{shard}.{suffix}.log",
    benchmark:
        "results/{study}/benchmarks/cache_board_activations/{model}.{shard}.{suffix}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("activations"),
        hooks=hook_options,
    shell:
        "saeflow chess cache {output:q}"
        " --model {input.model:q}"
        " --positions {input.positions:q}"
        " {params.hooks:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --shard {wildcards.shard:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule evaluate_board_sae:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
    output:
        "results/{study}/saes/{sae}/metrics.json",
    log:
        "results/{study}/logs/evaluate_board_sae/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/evaluate_board_sae/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        settings=settings("accuracy"),
        seed=STUDY.seed,
    shell:
        "saeflow chess evaluate-sae"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --positions {input.positions:q}"
        " --hook {params.hook:q}"
        " --tokens {params.tokens:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --metrics {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
