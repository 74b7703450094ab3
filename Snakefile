from snakemake.utils import min_version

min_version("9.0")


# A study is one file, not a patch on the default study: a file that is named replaces it.
if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/common.smk"
include: "rules/study.smk"
include: "rules/published.smk"
include: "rules/corpus.smk"
include: "rules/models.smk"
include: "rules/activations.smk"
include: "rules/saes.smk"
include: "rules/effects.smk"
include: "rules/approximators.smk"
include: "rules/steering.smk"
include: "rules/judging.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/publish.smk"


rule all:
    default_target: True
    input:
        files(
            "config.yaml",
            "provenance.json",
            *JUDGED,
            "figures/{figure}.png",
            "report/index.html",
        ),


rule activations:
    input:
        all_manifests,


rule saes:
    input:
        files("saes/{sae}/metrics.json"),


rule effects:
    input:
        files("effects/{target_sae}/effects.h5"),


rule approximator:
    input:
        files("approximators/{target_sae}/approximator.safetensors"),


rule evaluate:
    input:
        files(*JUDGED),


rule plots:
    input:
        files("figures/{figure}.png"),


rule publish:
    input:
        files("publish/record.json"),
