"""Decomposes directions in the decoders of SAEs.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/activations/{model}/{hook}/manifest.json
    results/{study}/corpus/sae.safetensors, or that of the study that trained the SAE
    results/{study}/steering/{goal}/{method}/vector.safetensors, where steering vectors are asked for

Outputs:
    results/{study}/decomposition/texts.parquet, activations.safetensors
    results/{study}/decomposition/{sae}/curves.parquet, latents.parquet, stability.parquet
    results/{study}/decomposition/{sae}/encoder.parquet, fidelity.parquet
"""

from saeflow.analyses.decomposition import TABLES as TABLES_OF_AN_SAE
from saeflow.analyses.decomposition.rules import (
    corpus_of,
    named_files,
    steering_vectors,
)


rule read_contrasts:
    input:
        **FLOW.model_inputs(FLOW.model),
        texts=list(named_files(FLOW, "texts").values()),
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
        texts=lambda wildcards: repeated(
            "--texts",
            [f"{name}={path}" for name, path in named_files(FLOW, "texts").items()],
        ),
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
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        manifest=artifact(FLOW.cache),
        corpus=lambda wildcards: corpus_of(FLOW, wildcards.sae),
        activations="results/{study}/decomposition/activations.safetensors",
        vectors=steering_vectors(FLOW),
        files=list(named_files(FLOW, "files").values()),
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
        steered=lambda wildcards, input: repeated("--vector", input.vectors),
        files=lambda wildcards: repeated(
            "--file",
            [f"{name}={path}" for name, path in named_files(FLOW, "files").items()],
        ),
        hook=STUDY.hook,
        seed=STUDY.seed,
    shell:
        "saeflow decomposition decompose"
        ' --sae "$(dirname {input.sae:q})"'
        " --model {input.model:q}"
        " --manifest {input.manifest:q}"
        " --corpus {input.corpus:q}"
        " --activations {input.activations:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --directions @<(printf %s {params.directions:q})"
        " --seed {params.seed:q}"
        " {params.steered:q} {params.files:q}"
        " --output results/{wildcards.study:q}/decomposition/{wildcards.sae:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
