"""Configuration, wildcards and the few functions that rules share."""

import json
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "src")))

from saeflow.config import check_study
from saeflow.config.counts import shard_count
from saeflow.config.locations import fetched, location
from saeflow.errors import SaeflowError

try:
    STUDY = check_study(config)
except SaeflowError as error:
    raise WorkflowError(str(error))

# Jobs find the package without an install, also on cluster nodes and in conda environments.
PACKAGE = f"export PYTHONPATH={workflow.basedir}/src; "
shell.prefix(PACKAGE)


def artifact(path):
    """Input function: our own ``results/<study>/<path>``, or the published one below ``resources/published/``.

    The section that the artifact belongs to says `published` and `source`; see `saeflow.config.locations`. What was
    fetched is `ancient`: that it is fetched again is no news, and another source is another path.
    """
    return lambda wildcards: located(path.format(**wildcards))


def located(path):
    """Where one artifact lies, or will."""
    found = location(STUDY, path, os.path.exists)
    return ancient(found) if is_fetched(path) else found


def is_fetched(path):
    """Whether one artifact is fetched rather than our own."""
    return fetched(STUDY, path, os.path.exists)


def files(*paths):
    """Every file of the study that `paths` name, with `{goal}`, `{method}`, … filled in each way."""
    return [located(file) for path in paths for file in collect(path, **NAMES)]


def spelled(path, **names):
    """A pattern as bash spells it, `{a,b}` for each way to fill in a name: lists of thousands of files are longer than
    a command may be."""
    for name, values in names.items():
        filled = ",".join(values)
        filled = f"{{{filled}}}" if len(values) > 1 else filled
        path = path.replace(f"{{{name}}}", filled)
    return path


def files_spelled(*paths):
    """A param: what `files` lists, for a command; a function, as Snakemake reads braces in text as wildcards."""
    words = []
    for path in paths:
        own, listed = f"results/{STUDY.study}/{path}", files(path)
        ours = listed == collect(own, **NAMES)
        words += [spelled(own, **NAMES)] if ours else listed
    text = " ".join(words)
    return lambda wildcards: text


def settings(*keys, only=None, without=()):
    """One section of the config, `only` some of its keys or all `without` some, as the JSON that a command takes.

    It is exactly what the job's result depends on, and so what triggers a rerun; what might have been fetched instead
    is no part of it.
    """
    value = STUDY
    for key in keys:
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    kept = set(only) if only else None
    left = {"published", "source", *without}
    return value.model_dump_json(include=kept, exclude=left)


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


def figure_tables_spelled(wildcards):
    """The same for a command."""
    return files_spelled(*FIGURES[wildcards.figure])(wildcards)


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
    written = [f"--target {files[-1]}"] if target else []
    return " ".join([*(f"--manifest {file}" for file in read), *written])


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
        return " ".join(f"--source {model}:{hook}" for model, hook in sources)
    return place_options(wildcards)


def place_options(wildcards):
    """Where an SAE or a transcoder reads and writes, as the command's options."""
    target = STUDY.saes[wildcards.sae].target
    return f"--hook {STUDY.hook_of(wildcards.sae)}" + (
        f" --target {target}" if target else ""
    )


def sae_path(wildcards):
    """Where one SAE is imported from."""
    return STUDY.saes[wildcards.sae].path


def sae_format(wildcards):
    """The format of an SAE that is imported."""
    return STUDY.saes[wildcards.sae].format


def sae_centred(wildcards):
    """The command's option `--centred`, for an SAE of centred activations."""
    return " --centred" if STUDY.saes[wildcards.sae].centred else ""


def shard_pattern(wildcards):
    """The files of the activation cache at one hook, and their numbers: a fixed number of token blocks each."""
    suffix = {"parquet": "parquet", "hdf5": "h5"}[STUDY.activations.format]
    folder = f"results/{wildcards.study}/activations/{wildcards.model}/{wildcards.hook}"
    numbers = [f"{shard:05d}" for shard in range(shard_count(STUDY))]
    return f"{folder}/shard-{{shard}}.{suffix}", {"shard": numbers}


def suffix_of(model):
    """What the names of rules about one of several models end in; nothing for the study's own."""
    return "" if model == STUDY.model.name else f"_{model}"


def shards(wildcards):
    """The shards of the activation cache at one hook."""
    path, numbers = shard_pattern(wildcards)
    return collect(path, **numbers)


def shards_spelled(wildcards):
    """The same for a command."""
    path, numbers = shard_pattern(wildcards)
    return spelled(path, **numbers)


# What is particular to the kind of study: NAMES, what may stand where `{sae}`, `{figure}`, … stands in `files(...)`;
# FIGURES, the figures and the tables each is drawn from; RESULTS, what the study is run for.
include: f"{STUDY.kind}.smk"


wildcard_constraints:
    **{name: one_of(values) for name, values in NAMES.items() if name != "model"},
    model=one_of(STUDY.all_models),
    hook=one_of({hook for hooks in STUDY.caches.values() for hook in hooks}),
    block=r"\d+",
    shard=r"\d+",
    suffix="parquet|h5|csv",
    source="[^/]+",
