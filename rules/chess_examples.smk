"""Keeps the positions in which each latent is active, and the pieces that go with it.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/

Outputs:
    results/{study}/examples/{sae}/latents.parquet                 by latent: how often and how strongly it fires
    results/{study}/examples/{sae}/boards.parquet                  positions in which it does
    results/{study}/examples/{sae}/histogram.parquet               its activations above 0
    results/{study}/examples/{sae}/squares.parquet                 its correlations with pieces on squares
"""


rule keep_positions:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
    output:
        latents="results/{study}/examples/{sae}/latents.parquet",
        boards="results/{study}/examples/{sae}/boards.parquet",
        histogram="results/{study}/examples/{sae}/histogram.parquet",
        squares="results/{study}/examples/{sae}/squares.parquet",
    log:
        "results/{study}/logs/keep_positions/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/keep_positions/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        settings=settings("examples"),
        seed=STUDY.seed,
    shell:
        "saeflow chess examples"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --tokens {params.tokens:q}"
        " --positions {input.positions:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.latents:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"
