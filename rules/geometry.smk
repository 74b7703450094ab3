"""Finds circles of words and lines of numbers, moves the model along them, and looks at latents that stand for
words and numbers.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/, results/{study}/examples/{sae}/    of SAEs whose latents are looked at
    files of texts with numbers that the config names

Outputs, in results/{study}/geometry/:
    activations.safetensors                    what the model holds of words and texts
    circles.parquet, places.parquet            circles beside their nulls, and where words lie
    lines.parquet, held_out.parquet            lines beside their nulls, and numbers of held-out texts
    angles.parquet, read_off.parquet           principal components; other texts along the lines
    turns.parquet, shifts.parquet, causes.parquet    what moving along them does
    latents.parquet, latent_groups.parquet, latent_circles.parquet, latent_places.parquet
    splits.parquet, periods.parquet, dated_latents.parquet    how latents split, and where they stand along lines
"""

from saeflow.analyses.geometry import (
    FITTED,
    LATENT_TABLES,
    MOVED,
    hooks,
    read_hooks,
    saes,
)
from saeflow.analyses.geometry.rules import sae_inputs, sae_options

GEOMETRY = STUDY.geometry
NUMBERED = FLOW.read["geometry"]


rule read_points:
    input:
        **FLOW.model_inputs(FLOW.model),
        texts=NUMBERED.files.local,
        fetched=[ancient(folder) for folder in NUMBERED.files.folders],
        saes=sae_inputs(FLOW, GEOMETRY),
    output:
        "results/{study}/geometry/activations.safetensors",
    log:
        "results/{study}/logs/read_points.log",
    benchmark:
        "results/{study}/benchmarks/read_points.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("geometry", "points"),
        hooks=repeated("--hook", read_hooks(STUDY, GEOMETRY)),
        texts=NUMBERED.options,
        folders=lambda wildcards, input: repeated(
            "--sae", [str(Path(file).parent) for file in input.saes]
        ),
        places=sae_options(FLOW, GEOMETRY),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow geometry read"
        " --model {input.model:q}"
        " {params.hooks:q}"
        " --settings @<(printf %s {params.settings:q})"
        " {params.texts:q} {params.folders:q} {params.places:q}"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule fit_geometry:
    input:
        activations="results/{study}/geometry/activations.safetensors",
    output:
        collect("results/{{study}}/geometry/{table}.parquet", table=FITTED),
    log:
        "results/{study}/logs/fit_geometry.log",
    benchmark:
        "results/{study}/benchmarks/fit_geometry.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("geometry", "points"),
        nulls=settings("geometry", "nulls"),
        hooks=repeated("--hook", hooks(STUDY, GEOMETRY)),
        seed=STUDY.seed,
    shell:
        "saeflow geometry fit"
        " --activations {input.activations:q}"
        " {params.hooks:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --nulls @<(printf %s {params.nulls:q})"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/geometry"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule move_points:
    input:
        **FLOW.model_inputs(FLOW.model),
        activations="results/{study}/geometry/activations.safetensors",
        texts=NUMBERED.files.local,
        fetched=[ancient(folder) for folder in NUMBERED.files.folders],
    output:
        collect("results/{{study}}/geometry/{table}.parquet", table=MOVED),
    log:
        "results/{study}/logs/move_points.log",
    benchmark:
        "results/{study}/benchmarks/move_points.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("geometry", "points"),
        nulls=settings("geometry", "nulls"),
        hooks=repeated("--hook", hooks(STUDY, GEOMETRY)),
        texts=NUMBERED.options,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow geometry move"
        " --model {input.model:q}"
        " --activations {input.activations:q}"
        " {params.hooks:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --nulls @<(printf %s {params.nulls:q})"
        " {params.texts:q}"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/geometry"
        " --threads {threads}"
        " > {log:q} 2>&1"


if GEOMETRY.latents:
    LOOKED_AT = saes(STUDY, GEOMETRY)

    rule find_latent_groups:
        input:
            activations="results/{study}/geometry/activations.safetensors",
            saes=sae_inputs(FLOW, GEOMETRY),
            contexts=[
                f"results/{{study}}/examples/{name}/contexts.parquet"
                for name in LOOKED_AT
            ],
            entries=[
                f"results/{{study}}/examples/{name}/activations" for name in LOOKED_AT
            ],
        output:
            collect("results/{{study}}/geometry/{table}.parquet", table=LATENT_TABLES),
        log:
            "results/{study}/logs/find_latent_groups.log",
        benchmark:
            "results/{study}/benchmarks/find_latent_groups.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        params:
            settings=settings("geometry", "points"),
            asked=settings("geometry", "latents"),
            nulls=settings("geometry", "nulls"),
            folders=lambda wildcards, input: repeated(
                "--sae", [str(Path(file).parent) for file in input.saes]
            ),
            places=sae_options(FLOW, GEOMETRY),
            examples=lambda wildcards, input: repeated(
                "--examples", [str(Path(file).parent) for file in input.contexts]
            ),
            sets=NUMBERED.set_options,
            said=NUMBERED.token_sets.said,
            seed=STUDY.seed,
        shell:
            "saeflow geometry latents"
            " --activations {input.activations:q}"
            " {params.folders:q} {params.places:q} {params.examples:q} {params.sets:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --asked @<(printf %s {params.asked:q})"
            " --nulls @<(printf %s {params.nulls:q})"
            " --seed {params.seed:q}"
            " --output results/{wildcards.study:q}/geometry"
            " --threads {threads}"
            " > {log:q} 2>&1"
