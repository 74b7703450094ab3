import os

from snakemake.utils import min_version

min_version("9.0")


# A file of this repository, for `include`. As a module from a local git repository whose top this file lies at, Snakemake
# would look for it at the top of the machine.
BASE = workflow.current_basedir
LOCAL = getattr(BASE, "repo_path", None) and not BASE.path
TOP = ["git+file://", os.path.abspath(BASE.repo_path), "/"] if LOCAL else []
REF = ["@", BASE.ref] if LOCAL else []
here = lambda *path: "".join([*TOP, *path, *REF])


report: "workflow/report/workflow.rst"


include: here("workflow/common.smk")
include: here("rules/study.smk")


for rules in RULES:

    include: here("rules/", rules, ".smk")


include: here("rules/manifests.smk")
include: here("rules/saes.smk")
include: here("rules/figures.smk")


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


rule plots:
    input:
        files("figures/{figure}.png"),


onstart:
    claim_study()


onsuccess:
    shell(f"saeflow study stages results/{STUDY.study}")
