"""Decomposes directions in the decoders of SAEs.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/activations/{model}/{hook}/manifest.json
    results/{study}/corpus/sae.safetensors, or that of the study that trained the SAE
    results/{study}/steering/{goal}/{method}/vector.safetensors, where steering vectors are asked for
    results/{study}/directions/{model}/{direction}/direction.safetensors, where measured directions are
    files of texts that contrasts name, here or in resources/published/{source}/labelled/

Outputs:
    results/{study}/decomposition/texts.parquet, activations.safetensors
    results/{study}/decomposition/{sae}/curves.parquet, latents.parquet, stability.parquet
    results/{study}/decomposition/{sae}/encoder.parquet, fidelity.parquet
    results/{study}/decomposition/{sae}/{model}/{direction}/edits.parquet    of measured directions
    results/{study}/decomposition/fidelity.parquet, differences.parquet, curves.parquet    seeds pooled
"""

from saeflow.analyses.decomposition import POOLED
from saeflow.analyses.decomposition import TABLES as TABLES_OF_AN_SAE
from saeflow.analyses.decomposition.rules import (
    corpus_of,
    left_out_options,
    measured_directions,
    pools,
    steering_vectors,
)

NAMED = FLOW.read["decomposition"]


rule read_contrasts:
    input:
        **FLOW.model_inputs(FLOW.model),
        texts=NAMED.files.local,
        fetched=[ancient(folder) for folder in NAMED.files.folders],
    output:
        activations="results/{study}/decomposition/activations.safetensors",
        table="results/{study}/decomposition/texts.parquet",
    log:
        "results/{study}/logs/read_contrasts.log",
    benchmark:
        "results/{study}/benchmarks/read_contrasts.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("decomposition", "directions"),
        texts=NAMED.options,
        hook=STUDY.hook,
        seed=STUDY.seed,
        dtype=STUDY.model.dtype,
    shell:
        "saeflow decomposition read"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " {params.texts:q}"
        " --dtype {params.dtype:q}"
        " --output {output.activations:q}"
        " --table {output.table:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule decompose_directions:
    input:
        **FLOW.model_inputs(FLOW.model),
        **measured_directions(FLOW),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        manifest=lambda wildcards: FLOW.manifests(wildcards.sae)[0],
        corpus=lambda wildcards: corpus_of(FLOW, wildcards.sae),
        activations="results/{study}/decomposition/activations.safetensors",
        vectors=steering_vectors(FLOW),
        files=NAMED.vectors,
    output:
        collect(
            "results/{{study}}/decomposition/{{sae}}/{table}.parquet",
            table=TABLES_OF_AN_SAE,
        ),
    log:
        "results/{study}/logs/decompose_directions/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/decompose_directions/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["decomposed_sae"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("decomposition", "curves"),
        directions=settings("decomposition", "directions"),
        left_out=lambda wildcards: left_out_options(FLOW, wildcards.sae),
        measured=lambda wildcards, input: repeated(
            "--measured", input.get("measured", [])
        ),
        steered=lambda wildcards, input: repeated("--vector", input.vectors),
        files=NAMED.vector_options,
        hook=STUDY.hook,
        seed=STUDY.seed,
    shell:
        "saeflow decomposition decompose"
        ' --sae "$(dirname {input.sae:q})"'
        " --model {input.model:q}"
        " --manifest {input.manifest:q}"
        " --corpus {input.corpus:q} {params.left_out:q}"
        " --activations {input.activations:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --directions @<(printf %s {params.directions:q})"
        " --seed {params.seed:q}"
        " {params.measured:q} {params.steered:q} {params.files:q}"
        " --output results/{wildcards.study:q}/decomposition/{wildcards.sae:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule pool_decompositions:
    input:
        collect(
            "results/{{study}}/decomposition/{sae}/{table}.parquet",
            sae=FLOW.names["decomposed_sae"],
            table=["fidelity", "curves"],
        ),
    output:
        collect("results/{{study}}/decomposition/{table}.parquet", table=POOLED),
    log:
        "results/{study}/logs/pool_decompositions.log",
    benchmark:
        "results/{study}/benchmarks/pool_decompositions.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        pools=given(pools(FLOW)),
        settings=settings("decomposition", "curves"),
    shell:
        "saeflow decomposition pool"
        " --pools @<(printf %s {params.pools:q})"
        " --settings @<(printf %s {params.settings:q})"
        " --output results/{wildcards.study:q}/decomposition"
        " > {log:q} 2>&1"


if FLOW.at("decomposition", "edits"):
    PROMPTS = FLOW.read["directions"]

    rule edit_sums:
        input:
            **FLOW.model_inputs("models/{model}"),
            sae=artifact("saes/{sae}/sae_weights.safetensors"),
            direction="results/{study}/directions/{model}/{direction}/direction.safetensors",
            read=measured_directions(FLOW)["read"],
            corpus="results/{study}/corpus/eval.safetensors",
        output:
            "results/{study}/decomposition/{sae}/{model}/{direction}/edits.parquet",
        log:
            "results/{study}/logs/edit_sums/{sae}/{model}/{direction}.log",
        benchmark:
            "results/{study}/benchmarks/edit_sums/{sae}/{model}/{direction}.jsonl"
        wildcard_constraints:
            sae=one_of(FLOW.names["decomposed_sae"]),
        conda:
            "../envs/default.yaml"
        threads: 1
        resources:
            gpu=1,
        params:
            settings=settings("decomposition", "edits"),
            prompts=PROMPTS.options,
            said=PROMPTS.said,
            asked=settings("directions", "prompts"),
            sources=settings("directions", "sources"),
            behaviour=settings("directions", "behaviour"),
            measures=settings("directions", "measures"),
            hook=STUDY.hook,
            dtype=STUDY.model.dtype,
            seed=STUDY.seed,
        shell:
            "saeflow decomposition edit"
            ' --sae "$(dirname {input.sae:q})"'
            " --model {input.model:q}"
            " --direction {input.direction:q}"
            " --hook {params.hook:q}"
            " --corpus {input.corpus:q}"
            " --settings @<(printf %s {params.settings:q})"
            " {params.prompts:q}"
            " --asked @<(printf %s {params.asked:q})"
            " --sources @<(printf %s {params.sources:q})"
            " --behaviour @<(printf %s {params.behaviour:q})"
            " --measures @<(printf %s {params.measures:q})"
            " --dtype {params.dtype:q}"
            " --seed {params.seed:q}"
            " --output {output:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"
