"""Fits the linear map from a steering vector to its effects.

Inputs:
    results/{study}/effects/{sae}/effects.h5
    results/{study}/saes/{sae}/

Outputs:
    results/{study}/approximators/{sae}/approximator.safetensors
    results/{study}/approximators/{sae}/metrics.json
    results/{study}/approximators/{sae}/latents.parquet
    results/{study}/approximators/{sae}/predictions.parquet
"""


rule fit_approximator:
    input:
        effects="results/{study}/effects/{sae}/effects.h5",
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
    output:
        approximator="results/{study}/approximators/{sae}/approximator.safetensors",
        metrics="results/{study}/approximators/{sae}/metrics.json",
        latents="results/{study}/approximators/{sae}/latents.parquet",
        predictions="results/{study}/approximators/{sae}/predictions.parquet",
    log:
        "results/{study}/logs/fit_approximator/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/fit_approximator/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 2
    params:
        settings=settings("approximator"),
        seed=STUDY.seed,
    shell:
        "saeflow effects fit"
        " --effects {input.effects}"
        " --sae $(dirname {input.sae})"
        " --settings {params.settings:q}"
        " --seed {params.seed}"
        " --output $(dirname {output.approximator})"
        " --threads {threads}"
        " > {log} 2>&1"
