"""Measures what latents hold and what the player does at every rating that it is told.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/concepts/labels.safetensors
    results/{study}/concepts/{sae}/associations.parquet

Outputs:
    results/{study}/skill/{sae}/skill.parquet, awareness.parquet
"""


rule measure_skill:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
        labels="results/{study}/concepts/labels.safetensors",
        associations="results/{study}/concepts/{sae}/associations.parquet",
        engine=engine_moves("skill"),
    output:
        skill="results/{study}/skill/{sae}/skill.parquet",
        awareness="results/{study}/skill/{sae}/awareness.parquet",
    log:
        "results/{study}/logs/measure_skill/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/measure_skill/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        engine=engine_option,
        settings=settings("skill"),
        seed=STUDY.seed,
    shell:
        "saeflow chess skill"
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
        ' --output "$(dirname {output.skill:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"
