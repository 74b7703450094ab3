"""Changes concepts' latents and measures what becomes of the player's moves.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/concepts/labels.safetensors
    results/{study}/concepts/{sae}/associations.parquet
    results/{study}/concepts/{sae}/directions.safetensors

Outputs:
    results/{study}/interventions/{sae}/interventions.parquet      what every edit changes, with controls
    results/{study}/interventions/{sae}/transitions.parquet        from which rating on the right move is found, position by position
    results/{study}/interventions/{sae}/shifts.parquet             the same in numbers
"""


rule intervene:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
        labels="results/{study}/concepts/labels.safetensors",
        associations="results/{study}/concepts/{sae}/associations.parquet",
        directions="results/{study}/concepts/{sae}/directions.safetensors",
        engine=engine_moves("interventions"),
    output:
        interventions="results/{study}/interventions/{sae}/interventions.parquet",
        transitions="results/{study}/interventions/{sae}/transitions.parquet",
        shifts="results/{study}/interventions/{sae}/shifts.parquet",
    log:
        "results/{study}/logs/intervene/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/intervene/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        engine=engine_option,
        settings=settings("interventions"),
        seed=STUDY.seed,
    shell:
        "saeflow chess intervene"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --tokens {params.tokens:q}"
        " --positions {input.positions:q}"
        " --labels {input.labels:q}"
        " --associations {input.associations:q}"
        " --directions {input.directions:q}"
        " {params.engine:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.interventions:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"
