"""Compares models: without a dictionary, and by the latents of crosscoders.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/corpus/eval.safetensors

Outputs, in results/{study}/diffing/:
    models/{model}/divergence.parquet, places.parquet, tokens.parquet
    models/{model}/differences.parquet, components.parquet, lens.parquet, difference.safetensors
    models/{model}/weights.parquet, steered.parquet, continuations.parquet
    saes/{sae}/latents.parquet, classes.parquet     to which model latents belong
    saes/{sae}/causal.parquet                       what they cause
    saes/{sae}/contexts.parquet, decoders.parquet, scatter.parquet      what they are
    matching/{pair}/latents.parquet, classes.parquet                    two SAEs, matched
"""

from saeflow.analyses.diffing import base
from saeflow.analyses.diffing.rules import models_of_pair, sae_options, saes_of_pair

BASE = base(STUDY, STUDY.diffing)
PROMPTS = FLOW.read["diffing"]
EXCLUDED_BY_NORM = repeated(
    "--cached", [":".join(place) for place in FLOW.cached_places()]
)


rule compare_models:
    input:
        **FLOW.model_inputs(f"models/{BASE}", "base"),
        **FLOW.model_inputs("models/{compared_model}"),
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        divergence="results/{study}/diffing/models/{compared_model}/divergence.parquet",
        places="results/{study}/diffing/models/{compared_model}/places.parquet",
        tokens="results/{study}/diffing/models/{compared_model}/tokens.parquet",
        differences="results/{study}/diffing/models/{compared_model}/differences.parquet",
        components="results/{study}/diffing/models/{compared_model}/components.parquet",
        lens="results/{study}/diffing/models/{compared_model}/lens.parquet",
        difference="results/{study}/diffing/models/{compared_model}/difference.safetensors",
        weights="results/{study}/diffing/models/{compared_model}/weights.parquet",
        steered="results/{study}/diffing/models/{compared_model}/steered.parquet",
        continuations="results/{study}/diffing/models/{compared_model}/continuations.parquet",
    log:
        "results/{study}/logs/compare_models/{compared_model}.log",
    benchmark:
        "results/{study}/benchmarks/compare_models/{compared_model}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=STUDY.hook,
        settings=settings("diffing", "baselines"),
        classes=settings("diffing", "classes"),
        activations=settings("activations"),
        cached=EXCLUDED_BY_NORM,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow diffing compare"
        " --model {input.base:q}"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --classes @<(printf %s {params.classes:q})"
        " --activations @<(printf %s {params.activations:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.divergence:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"


rule classify_latents:
    input:
        models=lambda wildcards: FLOW.read_models(wildcards.diffed_sae),
        checksums=lambda wildcards: FLOW.read_models(
            wildcards.diffed_sae, ".checksums.json"
        ),
        sae="results/{study}/saes/{diffed_sae}/sae_weights.safetensors",
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        latents="results/{study}/diffing/saes/{diffed_sae}/latents.parquet",
        classes="results/{study}/diffing/saes/{diffed_sae}/classes.parquet",
    log:
        "results/{study}/logs/classify_latents/{diffed_sae}.log",
    benchmark:
        "results/{study}/benchmarks/classify_latents/{diffed_sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        models=lambda wildcards, input: repeated("--model", input.models),
        base=BASE,
        settings=settings("diffing", "classes"),
        activations=settings("activations"),
        cached=EXCLUDED_BY_NORM,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow diffing classify"
        " {params.models:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --base {params.base:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --activations @<(printf %s {params.activations:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.latents:q}"
        " --counts {output.classes:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule put_latents_in:
    input:
        models=lambda wildcards: FLOW.read_models(wildcards.diffed_sae),
        checksums=lambda wildcards: FLOW.read_models(
            wildcards.diffed_sae, ".checksums.json"
        ),
        sae="results/{study}/saes/{diffed_sae}/sae_weights.safetensors",
        latents="results/{study}/diffing/saes/{diffed_sae}/latents.parquet",
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        causal="results/{study}/diffing/saes/{diffed_sae}/causal.parquet",
    log:
        "results/{study}/logs/put_latents_in/{diffed_sae}.log",
    benchmark:
        "results/{study}/benchmarks/put_latents_in/{diffed_sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        models=lambda wildcards, input: repeated("--model", input.models),
        base=BASE,
        settings=settings("diffing", "causal"),
        prompts=PROMPTS.options,
        said=PROMPTS.said,
        classes=settings("diffing", "classes"),
        activations=settings("activations"),
        cached=EXCLUDED_BY_NORM,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow diffing cause"
        " {params.models:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --base {params.base:q}"
        " --latents {input.latents:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " {params.prompts:q}"
        " --classes @<(printf %s {params.classes:q})"
        " --activations @<(printf %s {params.activations:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.causal:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule show_diffed_latents:
    input:
        models=lambda wildcards: FLOW.read_models(wildcards.diffed_sae),
        checksums=lambda wildcards: FLOW.read_models(
            wildcards.diffed_sae, ".checksums.json"
        ),
        sae="results/{study}/saes/{diffed_sae}/sae_weights.safetensors",
        latents="results/{study}/diffing/saes/{diffed_sae}/latents.parquet",
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        contexts="results/{study}/diffing/saes/{diffed_sae}/contexts.parquet",
        decoders="results/{study}/diffing/saes/{diffed_sae}/decoders.parquet",
        scatter="results/{study}/diffing/saes/{diffed_sae}/scatter.parquet",
    log:
        "results/{study}/logs/show_diffed_latents/{diffed_sae}.log",
    benchmark:
        "results/{study}/benchmarks/show_diffed_latents/{diffed_sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        models=lambda wildcards, input: repeated("--model", input.models),
        base=BASE,
        settings=settings("diffing", "shown"),
        classes=settings("diffing", "classes"),
        activations=settings("activations"),
        cached=EXCLUDED_BY_NORM,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow diffing contexts"
        " {params.models:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --base {params.base:q}"
        " --latents {input.latents:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --classes @<(printf %s {params.classes:q})"
        " --activations @<(printf %s {params.activations:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --output {output.contexts:q}"
        " --decoders {output.decoders:q}"
        " --scatter {output.scatter:q}"
        " --seed {params.seed:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule match_latents:
    input:
        models=lambda wildcards: models_of_pair(FLOW, wildcards.matched_pair),
        checksums=lambda wildcards: models_of_pair(
            FLOW, wildcards.matched_pair, ".checksums.json"
        ),
        saes=lambda wildcards: saes_of_pair(FLOW, wildcards.matched_pair),
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        latents="results/{study}/diffing/matching/{matched_pair}/latents.parquet",
        classes="results/{study}/diffing/matching/{matched_pair}/classes.parquet",
    log:
        "results/{study}/logs/match_latents/{matched_pair}.log",
    benchmark:
        "results/{study}/benchmarks/match_latents/{matched_pair}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        models=lambda wildcards, input: repeated("--model", input.models),
        folders=lambda wildcards, input: sae_options(input.saes),
        hook=lambda wildcards: STUDY.hook_of(
            STUDY.diffing.matching.pairs[wildcards.matched_pair][0]
        ),
        settings=settings("diffing", "matching"),
        classes=settings("diffing", "classes"),
        activations=settings("activations"),
        cached=EXCLUDED_BY_NORM,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow diffing match"
        " {params.models:q}"
        " {params.folders:q}"
        " --hook {params.hook:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --classes @<(printf %s {params.classes:q})"
        " --activations @<(printf %s {params.activations:q})"
        " {params.cached:q}"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.latents:q}"
        " --counts {output.classes:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
