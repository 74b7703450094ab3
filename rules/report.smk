"""Writes the static report from tables and figures; no model is run.

Inputs:
    figures, tables and metrics of the study, and what is known of its SAEs

Outputs:
    results/{study}/report/index.html, and beside it the other pages with all they need
"""


rule write_report:
    input:
        lambda wildcards: FLOW.report_sources(),
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
        options=FLOW.report_options,
        said=FLOW.report_said,
    shell:
        "saeflow report write"
        " --study results/{wildcards.study:q}"
        " {params.options:q}"
        ' --output "$(dirname {output:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"
