"""Fetches labelled texts that analyses name of packages and hubs; one job per package or revision.

Outputs:
    resources/published/{source}/labelled/    the files at their places, published.json: where they are from
"""

LABELLED = FLOW.labelled


rule fetch_labelled:
    output:
        directory("resources/published/{source}/labelled"),
    log:
        f"results/{STUDY.study}/logs/fetch_labelled/{{source}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_labelled/{{source}}.jsonl"
    wildcard_constraints:
        source=one_of(LABELLED),
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        wanted=lambda wildcards: LABELLED[wildcards.source].model_dump_json(
            ensure_ascii=True
        ),
    shell:
        "saeflow fetch labelled"
        " --sources @<(printf %s {params.wanted:q})"
        " --output {output:q}"
        " > {log:q} 2>&1"
