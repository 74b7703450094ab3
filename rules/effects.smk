"""Measures what steering vectors do to every latent, in blocks of vectors, and fits the linear map
that predicts it; or fetches what is published of either.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/corpus/eval.safetensors
    results/{study}/activations/{model}/{hook}/manifest.json
    the file that effects.vectors.path names

Outputs:
    results/{study}/effects/{sae}/baseline.safetensors
    results/{study}/effects/{sae}/shards/block-{block}.safetensors
    results/{study}/effects/{sae}/effects.h5
    results/{study}/effects/{sae}/approximator.safetensors    where it is not published
    results/{study}/effects/{sae}/metrics.json, latents.parquet, predictions.parquet
    resources/published/{source}/effects/{sae}/effects.h5, approximator.safetensors
"""

from saeflow.analyses.effects.rules import effect_blocks, vector_source


rule measure_baseline:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/eval.safetensors",
        manifest=artifact(FLOW.cache),
    output:
        "results/{study}/effects/{sae}/baseline.safetensors",
    log:
        "results/{study}/logs/measure_baseline/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/measure_baseline/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("effects", "measurement"),
        hook=STUDY.hook,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow effects baseline"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --manifest {input.manifest:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule measure_effects:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/eval.safetensors",
        manifest=artifact(FLOW.cache),
        baseline="results/{study}/effects/{sae}/baseline.safetensors",
        source=lambda wildcards: vector_source(FLOW, STUDY.effects, wildcards.sae),
    output:
        "results/{study}/effects/{sae}/shards/block-{block}.safetensors",
    log:
        "results/{study}/logs/measure_effects/{sae}.{block}.log",
    benchmark:
        "results/{study}/benchmarks/measure_effects/{sae}.{block}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
        decode="eager",
    params:
        settings=settings("effects", "measurement"),
        vectors=settings("effects", "vectors"),
        hook=STUDY.hook,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow effects measure"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --manifest {input.manifest:q}"
        " --baseline {input.baseline:q}"
        " --source {input.source:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --vectors @<(printf %s {params.vectors:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --block {wildcards.block:q}"
        " --output {output:q}"
        " --threads {threads}"
        " --decode {resources.decode:q}"
        " > {log:q} 2>&1"


rule merge_effects:
    input:
        lambda wildcards: effect_blocks(STUDY, STUDY.effects, wildcards.sae),
    output:
        "results/{study}/effects/{sae}/effects.h5",
    log:
        "results/{study}/logs/merge_effects/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/merge_effects/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        dtype=STUDY.effects.dtype,
    shell:
        "saeflow effects merge {input:q}"
        " --dtype {params.dtype:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"


if FLOW.is_fetched(f"effects/{STUDY.target_sae}/approximator.safetensors"):

    rule assess_approximator:
        input:
            effects=artifact("effects/{sae}/effects.h5"),
            approximator=artifact("effects/{sae}/approximator.safetensors"),
        output:
            metrics="results/{study}/effects/{sae}/metrics.json",
            latents="results/{study}/effects/{sae}/latents.parquet",
            predictions="results/{study}/effects/{sae}/predictions.parquet",
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
            approximator="results/{study}/effects/{sae}/approximator.safetensors",
            metrics="results/{study}/effects/{sae}/metrics.json",
            latents="results/{study}/effects/{sae}/latents.parquet",
            predictions="results/{study}/effects/{sae}/predictions.parquet",
        log:
            "results/{study}/logs/fit_approximator/{sae}.log",
        benchmark:
            "results/{study}/benchmarks/fit_approximator/{sae}.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        params:
            settings=settings("effects", "approximator"),
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


rule fetch_effects:
    output:
        "resources/published/{source}/effects/{sae}/effects.h5",
    log:
        f"results/{STUDY.study}/logs/fetch_effects/{{source}}.{{sae}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_effects/{{source}}.{{sae}}.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        published=FLOW.published("effects"),
        hook=STUDY.hook,
    shell:
        "saeflow fetch effects"
        " --published @<(printf %s {params.published:q})"
        " --key effects.published"
        " --hook {params.hook:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"


rule fetch_approximator:
    input:
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
    output:
        "resources/published/{source}/effects/{sae}/approximator.safetensors",
    log:
        f"results/{STUDY.study}/logs/fetch_approximator/{{source}}.{{sae}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_approximator/{{source}}.{{sae}}.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        published=FLOW.published("effects", "approximator"),
        hook=STUDY.hook,
    shell:
        "saeflow fetch approximator"
        " --published @<(printf %s {params.published:q})"
        " --key effects.approximator.published"
        " --hook {params.hook:q}"
        ' --sae "$(dirname {input.sae:q})"'
        ' --output "$(dirname {output:q})"'
        " > {log:q} 2>&1"
