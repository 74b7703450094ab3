"""Records what is run.

Outputs:
    results/{study}/config.yaml        the config with every default filled in
    results/{study}/provenance.json    versions, commit, machine
"""


rule record_study:
    output:
        config="results/{study}/config.yaml",
        provenance="results/{study}/provenance.json",
    log:
        "results/{study}/logs/record_study.log",
    benchmark:
        "results/{study}/benchmarks/record_study.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        study=settings(),
    shell:
        "saeflow study record"
        " --study @<(printf %s {params.study:q})"
        " --config {output.config:q}"
        " --provenance {output.provenance:q}"
        " > {log:q} 2>&1"
