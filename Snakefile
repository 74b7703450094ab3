import os
import sys

from snakemake.utils import min_version

min_version("9.0")


# A file of this repository, for `include`. As a module from a local git repository whose top this
# file lies at, Snakemake would look for it at the top of the machine.
BASE = workflow.current_basedir
LOCAL = getattr(BASE, "repo_path", None) and not BASE.path
TOP = ["git+file://", os.path.abspath(BASE.repo_path), "/"] if LOCAL else []
REF = ["@", BASE.ref] if LOCAL else []
here = lambda path: "".join([*TOP, path, *REF])


report: "workflow/report/workflow.rst"


include: here("workflow/common.smk")


for RULES in FLOW.rule_files:

    include: here(f"rules/{RULES}.smk")


rule all:
    default_target: True
    input:
        or_leave(FLOW.everything),
    localrule: True


# A target for every part: `activations`, `saes`, each analysis by its key, `evaluate`, `plots`.
for TARGET in [*FLOW.targets, *FLOW.not_asked]:

    rule:
        name:
            TARGET
        input:
            or_leave(FLOW.target(TARGET)),
        localrule: True


onstart:
    FLOW.claim()


# Also where `--quiet rules` hides them.
onerror:
    print(FLOW.ends_of_logs(workflow.scheduler.failed), file=sys.stderr)


onsuccess:
    shell(f"saeflow study stages results/{STUDY.study}")
