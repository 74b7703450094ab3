"""Changes concepts' latents and measures what becomes of the player's moves.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/concepts/labels.safetensors
    results/{study}/concepts/{sae}/associations.parquet

Outputs:
    results/{study}/interventions/{sae}/interventions.parquet
"""


rule intervene:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
        labels="results/{study}/concepts/labels.safetensors",
        associations="results/{study}/concepts/{sae}/associations.parquet",
        engine=engine_moves("interventions"),
    output:
        "results/{study}/interventions/{sae}/interventions.parquet",
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
        " {params.engine:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
