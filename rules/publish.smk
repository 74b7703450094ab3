"""Publishes what the study computed; a dry run unless the config says `publish.upload`.

Inputs:
    results/{study}/config.yaml, provenance.json
    effects, approximators, SAEs, tables, figures of the study's own

Outputs:
    results/{study}/publish/README.md      the card
    results/{study}/publish/record.json    what was uploaded, or would be
"""


rule publish_artifacts:
    input:
        lambda wildcards: FLOW.publishable(),
    output:
        card="results/{study}/publish/README.md",
        record="results/{study}/publish/record.json",
    log:
        "results/{study}/logs/publish_artifacts.log",
    benchmark:
        "results/{study}/benchmarks/publish_artifacts.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        settings=settings("publish"),
    shell:
        "saeflow publish results/{wildcards.study:q}"
        " --settings @<(printf %s {params.settings:q})"
        " > {log:q} 2>&1"
