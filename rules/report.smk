"""Writes the static report from tables and figures; no model is run.

Inputs:
    figures, tables, completions, scores and metrics of the study

Outputs:
    results/{study}/report/index.html
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
    shell:
        "saeflow report write {input}"
        " --study results/{wildcards.study}"
        " --output $(dirname {output})"
        " > {log} 2>&1"
