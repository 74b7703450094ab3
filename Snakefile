import os

from snakemake.utils import min_version

min_version("9.0")


# A file of this repository, for `include`. As a module from a local git repository whose top this file lies at, Snakemake
# would look for it at the top of the machine.
BASE = workflow.current_basedir
LOCAL = getattr(BASE, "repo_path", None) and not BASE.path
TOP = ["git+file://", os.path.abspath(BASE.repo_path), "/"] if LOCAL else []
REF = ["@", BASE.ref] if LOCAL else []
here = lambda path: "".join([*TOP, path, *REF])


report: "workflow/report/workflow.rst"


include: here("workflow/common.smk")
include: here("rules/study.smk")


if STUDY.kind == "chess":

    include: here("rules/chess_models.smk")
    include: here("rules/chess.smk")

    if STUDY.engine:

        include: here("rules/chess_engine.smk")

else:

    include: here("rules/published.smk")
    include: here("rules/corpus.smk")
    include: here("rules/models.smk")
    include: here("rules/activations.smk")
    include: here("rules/sae_metrics.smk")
    include: here("rules/examples.smk")
    include: here("rules/logit_lens.smk")
    include: here("rules/effects.smk")
    include: here("rules/approximators.smk")
    include: here("rules/steering.smk")
    include: here("rules/judging.smk")
    include: here("rules/publish.smk")


include: here("rules/manifests.smk")
include: here("rules/saes.smk")
include: here("rules/figures.smk")
include: here("rules/report.smk")


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


onstart:
    claim_study()


onsuccess:
    shell(f"saeflow study stages results/{STUDY.study}")
