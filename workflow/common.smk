"""Configuration, wildcards and the few functions that rules share."""

import fcntl
import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The checkout that this file lies in; none where Snakemake reads it from a repository, as a module: then the package
# must be installed. `workflow.basedir` would be the folder of the workflow that uses this one.
HERE = workflow.current_basedir.get_path_or_uri(secret_free=True)
ROOT = Path(HERE).parent if os.path.isdir(HERE) else None
if ROOT:
    sys.path.insert(0, str(ROOT / "src"))

from saeflow.config.locations import fetched, location
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study, read_any_study

# The files are read by the function that `saeflow plan` reads them by, so that both take and refuse the same: Snakemake
# itself keeps the last of a key that stands twice, and runs the code of a file that says `__use_yte__`; of files named
# on the command line it has done so by now. What `--config` says stands over all files. As a module, the config is
# another workflow's matter.
CONFIGS = workflow.config_settings.configfiles
try:
    if workflow.modifier.is_main_snakefile():
        STUDY = read_any_study(
            *(CONFIGS or ["config.yaml"]), over=workflow.config_settings.config
        )
    else:
        STUDY = check_any_study(config)
except SaeflowError as error:
    raise WorkflowError(str(error))

# A study is one file, not a patch on the default study: a file that is named replaces it.
if not CONFIGS:

    configfile: "config.yaml"


# Jobs find the package without an install, also on cluster nodes and in conda environments, before what the user's own
# PYTHONPATH names. A prefix takes the place of Snakemake's own, which lets no failure pass.
PREFIX = "set -euo pipefail; "
if ROOT:
    SOURCES = shlex.quote(f"{ROOT}/src")
    PREFIX += f'export PYTHONPATH={SOURCES}"${{PYTHONPATH:+:$PYTHONPATH}}"; '
# Only a job may remove a damaged file, and only of its own study.
PREFIX += f"export SAEFLOW_STUDY_FOLDER={shlex.quote(f'results/{STUDY.study}')}; "
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))


def shipped(path):
    """A file that comes with the workflow; by a relative path if it can be, so that a checkout may be moved."""
    if ROOT is None:
        return workflow.source_path(f"../{path}")
    file = ROOT / path
    return str(
        file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    )


def sought(path, below=""):
    """A path of the config, and what lies `below` it: in the working directory where it is there, else shipped."""
    file = os.path.join(path, below) if below else path
    return file if os.path.exists(path) else shipped(file)


def claim_study():
    """Hold the study for as long as this process lives, for the case that a link makes one folder of results of two:
    Snakemake's own lock is that of the folder that it works in."""
    global CLAIM
    folder = f"results/{STUDY.study}"
    os.makedirs(folder, exist_ok=True)
    CLAIM = open(f"{folder}/.claim", "a")
    try:
        fcntl.flock(CLAIM, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = f"{os.path.realpath(folder)}: another Snakemake works on this study; wait until it has ended"
        raise WorkflowError(text)
    except OSError:
        pass  # a file system without locks


def artifact(path):
    """Input function: our own ``results/<study>/<path>``, or the published one below ``resources/published/``.

    The section that the artifact belongs to says `published` and `source`; see `saeflow.config.locations`. What was
    fetched is `ancient`: that it is fetched again is no news, and another source is another path.
    """
    return lambda wildcards: located(path.format(**wildcards))


def located(path):
    """Where one artifact lies, or will."""
    found = location(STUDY, path, os.path.exists)
    is_folder = path.removeprefix("models/") in STUDY.all_models
    return ancient(found) if is_fetched(path) or is_folder else found


def model_inputs(path, name="model"):
    """Inputs of whoever runs a model: its folder, whose age says nothing, and the checksums of its files.

    Snakemake keeps no checksum of a folder, so that a copy of a study would be older and newer than itself.
    """
    return {
        name: artifact(path),
        f"{name}_checksums": artifact(f"{path}.checksums.json"),
    }


def is_fetched(path):
    """Whether one artifact is fetched rather than our own."""
    return fetched(STUDY, path, os.path.exists)


def files(*paths):
    """Every file of the study that `paths` name, with `{goal}`, `{method}`, … filled in each way."""
    return [located(file) for path in paths for file in collect(path, **NAMES)]


# How rules hand things to bash, which tests/workflow/test_quoting.py holds them to:
# - every input, output, param, wildcard and log in a command ends in `:q`, and `"$(dirname {...:q})"` has quotes;
# - a param with text of the config is a function, as Snakemake takes braces in plain text for wildcards;
# - options that may be absent or stand several times are a list of words;
# - JSON reaches the command as a file, `@<(printf %s {params.settings:q})`, as one argument holds 128 KiB at most.


def given(value):
    """A param that is what it is, whatever braces it holds."""
    return lambda wildcards: value


def of_study(keys, wildcards):
    """The value at some keys of the config; `{sae}` among them stands for the wildcard."""
    value = STUDY
    for key in keys:
        key = key.format(**wildcards)
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


def named(*keys):
    """An input: the file that a key of the config names, if it does."""
    return lambda wildcards: of_study(keys, wildcards) or []


def settings(*keys, only=None, without=()):
    """A param: one section of the config, `only` some of its keys or all `without` some, as the JSON that a command
    takes; without `keys` the whole config.

    It is exactly what the job's result depends on, and so what triggers a rerun; what might have been fetched instead
    is no part of it.
    """
    kept = set(only) if only else None
    left = {"published", "source", *without} if keys else None

    def of(wildcards):
        section = of_study(keys, wildcards)
        return section.model_dump_json(include=kept, exclude=left, ensure_ascii=True)

    return of


def repeated(option, values):
    """The words that give an option once for each value."""
    return [word for value in values for word in (option, value)]


def one_of(names):
    """A wildcard constraint: any of `names`, and nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def shown(path):
    """A table as Snakemake's own report shows it, with the caption of its name."""
    name = Path(path).stem
    return report(
        path,
        caption=f"../workflow/report/{name}.rst",
        category="Tables",
        labels={"table": name.replace("_", " ")},
    )


def figure_tables(wildcards):
    """The tables that one figure is drawn from."""
    return files(*FIGURES[wildcards.figure])


def sae_settings(names):
    """How the SAEs of one job are trained, by name."""
    return json.dumps({name: STUDY.saes[name].train.model_dump() for name in names})


def manifests(sae):
    """What vouches for the activation caches that one SAE is trained on; of a transcoder, last what it writes."""
    return [
        located(f"activations/{model}/{hook}/manifest.json")
        for model, hook in STUDY.caches_of(sae)
    ]


def manifest_options(sae, files):
    """The command's options `--manifest` and `--target`, from the files that `manifests` names."""
    target = STUDY.saes[sae].kind == "transcoder"
    read = files[:-1] if target else files
    written = files[-1:] if target else []
    return [*repeated("--manifest", read), *repeated("--target", written)]


def all_manifests(wildcards):
    """What vouches for every activation cache of the study."""
    return [
        located(f"activations/{model}/{hook}/manifest.json")
        for model, hooks in STUDY.caches.items()
        for hook in hooks
    ]


def import_options(wildcards):
    """Where an SAE that is imported reads and writes, as the command's options."""
    sae, sources = STUDY.saes[wildcards.sae], STUDY.sources_of(wildcards.sae)
    if sae.kind == "crosscoder":
        return repeated("--source", [f"{model}:{hook}" for model, hook in sources])
    return place_options(wildcards)


def place_options(wildcards):
    """Where an SAE or a transcoder reads and writes, as the command's options."""
    target = STUDY.saes[wildcards.sae].target
    return [
        *("--hook", STUDY.hook_of(wildcards.sae)),
        *(("--target", target) if target else ()),
    ]


def sae_path(wildcards):
    """Where one SAE is imported from."""
    return STUDY.saes[wildcards.sae].path


def sae_format(wildcards):
    """The format of an SAE that is imported."""
    return STUDY.saes[wildcards.sae].format


def sae_centred(wildcards):
    """The command's option `--centred`, for an SAE of centred activations."""
    return ["--centred"] if STUDY.saes[wildcards.sae].centred else []


def shards(wildcards):
    """The shards of the activation cache at one hook: a fixed number of token blocks each."""
    suffix = {"parquet": "parquet", "hdf5": "h5"}[STUDY.activations.format]
    folder = f"results/{wildcards.study}/activations/{wildcards.model}/{wildcards.hook}"
    numbers = [f"{shard:05d}" for shard in range(STUDY.shards)]
    return [f"{folder}/shard-{number}.{suffix}" for number in numbers]


def suffix_of(model):
    """What the names of rules about one of several models end in; nothing for the study's own."""
    return "" if model == STUDY.model.name else f"_{model}"


# What is particular to the kind of study: NAMES, what may stand where `{sae}`, `{figure}`, … stands in `files(...)`;
# FIGURES, the figures and the tables each is drawn from; RULES, the files of its rules; RESULTS, what it is run for.
include: f"{STUDY.kind}.smk"


wildcard_constraints:
    **{name: one_of(values) for name, values in NAMES.items() if name != "model"},
    model=one_of(STUDY.all_models),
    hook=one_of({hook for hooks in STUDY.caches.values() for hook in hooks}),
    block=r"\d+",
    shard=r"\d+",
    suffix="parquet|h5|csv",
    source="[^/]+",
