"""Finds circles of words and lines of numbers, and moves the model along them.

Inputs:
    results/{study}/models/{model}/
    files of texts with numbers that the config names

Outputs, in results/{study}/geometry/:
    activations.safetensors                    what the model holds of words and texts
    circles.parquet, places.parquet            circles beside their nulls, and where words lie
    lines.parquet, held_out.parquet            lines beside their nulls, and numbers of held-out texts
    angles.parquet, read_off.parquet           principal components; other texts along the lines
    turns.parquet, shifts.parquet, causes.parquet    what moving along them does
"""

from saeflow.analyses.geometry import FITTED, MOVED, hooks
from saeflow.analyses.geometry.rules import text_files

GEOMETRY = STUDY.geometry
NUMBERED = text_files(FLOW)


rule read_points:
    input:
        **FLOW.model_inputs(FLOW.model),
        texts=list(NUMBERED.values()),
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
        hooks=repeated("--hook", hooks(STUDY, GEOMETRY)),
        texts=repeated("--texts", [f"{name}={path}" for name, path in NUMBERED.items()]),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow geometry read"
        " --model {input.model:q}"
        " {params.hooks:q}"
        " --settings @<(printf %s {params.settings:q})"
        " {params.texts:q}"
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
        texts=list(NUMBERED.values()),
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
        texts=repeated("--texts", [f"{name}={path}" for name, path in NUMBERED.items()]),
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
