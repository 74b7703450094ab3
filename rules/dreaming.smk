"""Dreams of latents: prompts that move them most, and are likely text at once.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/examples/{sae}/contexts.parquet, latents.parquet, where examples are asked for
    files of vectors that the config names

Outputs, in results/{study}/dreaming/{dreamed}/, of each SAE and without-sae:
    fronts.parquet, progress.parquet, contexts.parquet, targets.parquet
"""

from saeflow.analyses.dreaming import TABLES as TABLES_OF_DREAMS
from saeflow.analyses.dreaming.rules import (
    direction_files,
    examples_of,
    hook_of,
    sae_of,
    source_options,
)


rule dream:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=lambda wildcards: sae_of(FLOW, wildcards.dreamed),
        examples=lambda wildcards: examples_of(FLOW, wildcards.dreamed),
        directions=lambda wildcards: list(
            direction_files(FLOW, wildcards.dreamed).values()
        ),
    output:
        collect(
            "results/{{study}}/dreaming/{{dreamed}}/{table}.parquet",
            table=TABLES_OF_DREAMS,
        ),
    log:
        "results/{study}/logs/dream/{dreamed}.log",
    benchmark:
        "results/{study}/benchmarks/dream/{dreamed}.jsonl"
    wildcard_constraints:
        dreamed=one_of(FLOW.names["dreamed"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("dreaming"),
        origins=lambda wildcards, input: source_options(
            FLOW, wildcards.dreamed, input.sae, input.examples
        ),
        hook=lambda wildcards: hook_of(STUDY, wildcards.dreamed),
        seed=STUDY.seed,
        dtype=STUDY.model.dtype,
    shell:
        "saeflow dreaming dream"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        " --name {wildcards.dreamed:q}"
        " {params.origins:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --parts results/{wildcards.study:q}/checkpoints/dreaming/{wildcards.dreamed:q}"
        " --output results/{wildcards.study:q}/dreaming/{wildcards.dreamed:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
