from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/common.smk"
include: "rules/study.smk"


if STUDY.kind == "chess":

    include: "rules/chess_models.smk"
    include: "rules/chess.smk"

    if STUDY.engine:

        include: "rules/chess_engine.smk"

else:

    include: "rules/published.smk"
    include: "rules/corpus.smk"
    include: "rules/models.smk"
    include: "rules/activations.smk"
    include: "rules/sae_metrics.smk"
    include: "rules/examples.smk"
    include: "rules/logit_lens.smk"
    include: "rules/effects.smk"
    include: "rules/approximators.smk"
    include: "rules/steering.smk"
    include: "rules/judging.smk"
    include: "rules/publish.smk"


include: "rules/manifests.smk"
include: "rules/saes.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        files(*RESULTS),


rule activations:
    input:
        all_manifests,


rule saes:
    input:
        files(*SAE_TABLES),


if STUDY.kind == "language":

    rule examples:
        input:
            files(*LATENTS[:1]),

    rule logit_lens:
        input:
            files(*LATENTS),

    rule effects:
        input:
            files("effects/{target_sae}/effects.h5"),

    rule approximator:
        input:
            files("approximators/{target_sae}/approximator.safetensors"),

    rule evaluate:
        input:
            files(*JUDGED),

    rule publish:
        input:
            files("publish/record.json"),

    # A study of chess is another study: its own run of this file, in the same folder.
    rule chess:
        log:
            f"results/{STUDY.study}/logs/chess.log",
        conda:
            "envs/default.yaml"
        # Asked for late: on a cluster there is no number of cores, and no such job.
        threads: lambda wildcards: workflow.cores
        params:
            snakemake=given(
                [
                    sys.executable,
                    "-m",
                    "snakemake",
                    "--snakefile",
                    shipped("Snakefile"),
                ]
            ),
            config=given(shipped("workflow/studies/chess.yaml")),
        shell:
            "{params.snakemake:q} chess"
            " --configfile {params.config:q}"
            " --cores {threads}"
            " --nolock"
            " 2>&1 | tee {log:q}"

else:

    rule chess:
        input:
            files(*RESULTS),


rule plots:
    input:
        files("figures/{figure}.png"),


onsuccess:
    shell(f"saeflow study stages results/{STUDY.study}")
