"""The study, and what all rules share."""

import os
import shlex
import sys
from pathlib import Path

# The checkout that this file lies in; none where Snakemake reads it from a repository, as a
# module: then the package must be installed. `workflow.basedir` would be the folder of the workflow
# that uses this one.
HERE = workflow.current_basedir.get_path_or_uri(secret_free=True)
ROOT = Path(HERE).parent if os.path.isdir(HERE) else None
if ROOT:
    sys.path.insert(0, str(ROOT / "src"))

from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study, read_any_study, workflow_of
from saeflow.workflow import given, leave, one_of, or_leave, repeated

# The files are read by the function that `saeflow plan` reads them by, so that both take and refuse
# the same: Snakemake itself keeps the last of a key that stands twice, and runs the code of a file
# that says `__use_yte__`; of files named on the command line it has done so by now. What `--config`
# says stands over all files. As a module, the config is another workflow's matter.
CONFIGS = workflow.config_settings.configfiles
OVER = workflow.config_settings.config
try:
    if workflow.modifier.is_main_snakefile():
        STUDY = read_any_study(*(CONFIGS or ["config.yaml"]), over=OVER)
    else:
        STUDY = check_any_study(config)
    # Called from here, as `source_path` goes by the file that its caller lies in.
    FLOW = workflow_of(STUDY, ROOT, lambda path: workflow.source_path(path))
except SaeflowError as error:
    leave(error)

# A study is one file, not a patch on the default study: a file that is named replaces it.
if not CONFIGS:

    configfile: "config.yaml"


# Jobs find the package without an install, also on cluster nodes and in conda environments, before
# what the user's own PYTHONPATH names. A prefix takes the place of Snakemake's own, which lets no
# failure pass. Only a job may remove a damaged file, and only of its own study.
PREFIX = "set -euo pipefail; "
if ROOT:
    SOURCES = shlex.quote(f"{ROOT}/src")
    PREFIX += f'export PYTHONPATH={SOURCES}"${{PYTHONPATH:+:$PYTHONPATH}}"; '
PREFIX += f"export SAEFLOW_STUDY_FOLDER={shlex.quote(f'results/{STUDY.study}')}; "
# Jobs compare files that they read, and themselves, with the settings that `FLOW.claim` declares; a
# module has no start of its own.
if workflow.modifier.is_main_snakefile():
    PREFIX += f"export SAEFLOW_SETTINGS={shlex.quote(FLOW.declared)}; "
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))

# How rules hand things to bash, which tests/workflow/test_quoting.py holds them to:
# - every input, output, param, wildcard and log in a command ends in `:q`, and
#   `"$(dirname {...:q})"` has quotes;
# - a param with text of the config is a function, as Snakemake takes braces in plain text for
#   wildcards;
# - options that may be absent or stand several times are a list of words;
# - JSON reaches the command as a file, `@<(printf %s {params.settings:q})`, as one argument holds
#   128 KiB at most.
artifact, located, files, settings = (
    FLOW.artifact,
    FLOW.located,
    FLOW.files,
    FLOW.settings,
)


def shown(path):
    """A table as Snakemake's own report shows it, with the caption of its name."""
    name = Path(path).stem
    return report(
        path,
        caption=f"../workflow/report/{name}.rst",
        category="Tables",
        labels={"table": name.replace("_", " ")},
    )


wildcard_constraints:
    **{name: one_of(values) for name, values in FLOW.names.items() if name != "model"},
    model=one_of(STUDY.all_models),
    hook=one_of({hook for hooks in STUDY.caches.values() for hook in hooks}),
    block=r"\d+",
    shard=r"\d+",
    suffix="parquet|h5|csv",
    source="[^/]+",
