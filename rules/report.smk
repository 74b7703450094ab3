"""Writes the static report from tables and figures; no model is run.

Inputs:
    figures, tables, completions, scores and metrics of the study, and what is known of the latents of its SAEs

Outputs:
    results/{study}/report/index.html, and beside it the other pages with all they need
"""


rule write_report:
    input:
        report_sources,
    output:
        "results/{study}/report/index.html",
    log:
        "results/{study}/logs/write_report.log",
    benchmark:
        "results/{study}/benchmarks/write_report.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        figures=",".join(NAMES["figure"]),
        goals=Path(workflow.basedir, STUDY.goals.directory),
    shell:
        "saeflow report write"
        " --study results/{wildcards.study}"
        " --figures {params.figures}"
        " --goals {params.goals:q}"
        " --output $(dirname {output})"
        " --threads {threads}"
        " > {log} 2>&1"
