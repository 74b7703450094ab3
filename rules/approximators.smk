"""Fits the linear map from a steering vector to its effects, or measures a published one.

Inputs:
    effects/{sae}/effects.h5, ours or published
    saes/{sae}/, ours or published
    approximators/{sae}/approximator.safetensors, where it is published

Outputs:
    results/{study}/approximators/{sae}/approximator.safetensors    where it is not published
    results/{study}/approximators/{sae}/metrics.json
    results/{study}/approximators/{sae}/latents.parquet
    results/{study}/approximators/{sae}/predictions.parquet
"""

if is_fetched(APPROXIMATOR):

    rule assess_approximator:
        input:
            effects=artifact("effects/{sae}/effects.h5"),
            approximator=artifact("approximators/{sae}/approximator.safetensors"),
        output:
            metrics="results/{study}/approximators/{sae}/metrics.json",
            latents="results/{study}/approximators/{sae}/latents.parquet",
            predictions="results/{study}/approximators/{sae}/predictions.parquet",
        log:
            "results/{study}/logs/assess_approximator/{sae}.log",
        benchmark:
            "results/{study}/benchmarks/assess_approximator/{sae}.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        params:
            seed=STUDY.seed,
        shell:
            "saeflow effects assess"
            " --effects {input.effects:q}"
            " --approximator {input.approximator:q}"
            " --seed {params.seed:q}"
            ' --output "$(dirname {output.metrics:q})"'
            " --threads {threads}"
            " > {log:q} 2>&1"

else:

    rule fit_approximator:
        input:
            effects=artifact("effects/{sae}/effects.h5"),
            sae=artifact("saes/{sae}/sae_weights.safetensors"),
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
        threads: 1
        params:
            settings=settings("approximator"),
            seed=STUDY.seed,
        shell:
            "saeflow effects fit"
            " --effects {input.effects:q}"
            ' --sae "$(dirname {input.sae:q})"'
            " --settings @<(printf %s {params.settings:q})"
            " --seed {params.seed:q}"
            ' --output "$(dirname {output.approximator:q})"'
            " --threads {threads}"
            " > {log:q} 2>&1"
