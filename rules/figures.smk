"""Draws figures from tables; no model is run.

Inputs:
    the tables that the figures name

Outputs:
    results/{study}/figures/{figure}.png, .svg, .csv, and .json with their checksums
"""


rule draw_figure:
    input:
        lambda wildcards: FLOW.tables(wildcards.figure),
    output:
        png=report(
            "results/{study}/figures/{figure}.png",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        svg="results/{study}/figures/{figure}.svg",
        csv="results/{study}/figures/{figure}.csv",
        checksums="results/{study}/figures/{figure}.json",
    log:
        "results/{study}/logs/draw_figure/{figure}.log",
    benchmark:
        "results/{study}/benchmarks/draw_figure/{figure}.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("figures"),
        facts=FLOW.figure_facts,
        caption=FLOW.caption,
    shell:
        "saeflow figures draw {wildcards.figure:q} {input:q}"
        " --study results/{wildcards.study:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --facts @<(printf %s {params.facts:q})"
        ' --output "$(dirname {output.png:q})"'
        " > {log:q} 2>&1"
