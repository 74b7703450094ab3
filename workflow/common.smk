"""Configuration, wildcards and the few functions that rules share."""

import json
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "src")))

from saeflow.config import check_study
from saeflow.config.counts import block_count, shard_count
from saeflow.errors import SaeflowError

try:
    STUDY = check_study(config)
except SaeflowError as error:
    raise WorkflowError(str(error))

# Jobs find the package without an install, also on cluster nodes and in conda environments. How an endpoint is called
# and what may be spent stands beside their params, not among them: no change of it reruns anything.
CALLS = shlex.quote(STUDY.calls.model_dump_json()).replace("{", "{{").replace("}", "}}")
shell.prefix(
    f"export PYTHONPATH={workflow.basedir}/src; export SAEFLOW_CALLS={CALLS}; "
)

# What may stand where `{goal}`, `{method}`, … stands in the target `files(...)`.
NAMES = {
    "study": [STUDY.study],
    "model": [STUDY.model.name],
    "hook": STUDY.hooks,
    "sae": list(STUDY.saes),
    "target_sae": [STUDY.steering_sae],
    "goal": STUDY.goals.names,
    "method": STUDY.steering.methods,
    "split": ["model", "sae", "eval"],
}


# The figures of the study, and the tables each is drawn from.
FIGURES = {
    "methods_forest": ["steering/best.parquet"],
    "product_by_scale": ["steering/summary.parquet"],
    "goal_detail": ["steering/summary.parquet"],
    "pareto": ["steering/summary.parquet"],
    "equal_coherence": ["steering/matched.parquet"],
    "equal_divergence": ["steering/matched.parquet"],
    "steered_vs_unsteered": ["steering/summary.parquet"],
    "effects_predicted_measured": [
        "approximators/{target_sae}/predictions.parquet",
        "approximators/{target_sae}/metrics.json",
    ],
    "side_effects": ["steering/{goal}/side_effects.parquet"],
    "effect_scales": ["effects/{target_sae}/effects.h5"],
}
if STUDY.corpus.kind == "tales":
    FIGURES["sae_recovery"] = ["saes/{sae}/recovery.parquet"]
if trained := [name for name, sae in STUDY.saes.items() if sae.train]:
    FIGURES["sae_training"] = [f"saes/{name}/training.parquet" for name in trained]
if STUDY.model.train:
    FIGURES["model_training"] = ["models/{model}", "models/{model}.metrics.json"]
NAMES["figure"] = list(FIGURES)


localrules:
    all,
    activations,
    saes,
    effects,
    approximator,
    evaluate,
    plots,


def files(*paths):
    """Every file of the study that `paths` name, with `{goal}`, `{method}`, … filled in each way."""
    return [
        file for path in paths for file in collect(f"results/{{study}}/{path}", **NAMES)
    ]


def settings(*keys, only=None, without=()):
    """One section of the config, `only` some of its keys or all `without` some, as the JSON that a command takes.

    It is exactly what the job's result depends on, and so what triggers a rerun.
    """
    value = STUDY
    for key in keys:
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    kept = set(only) if only else None
    return value.model_dump_json(include=kept, exclude=set(without))


def one_of(names):
    """A wildcard constraint: any of `names`, and nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def figure_tables(wildcards):
    """The tables that one figure is drawn from."""
    return files(*FIGURES[wildcards.figure])


def report_sources(wildcards):
    """Everything that the report shows."""
    return files(
        "config.yaml",
        "provenance.json",
        "models/{model}.metrics.json",
        "saes/{sae}/metrics.json",
        "approximators/{target_sae}/metrics.json",
        "effects/{target_sae}/baseline.safetensors",
        "steering/{goal}/latents.json",
        "steering/{goal}/{method}/completions.parquet",
        "steering/{goal}/{method}/scores.parquet",
        "steering/comparisons.parquet",
        "figures/{figure}.png",
        *sorted({table for tables in FIGURES.values() for table in tables}),
    )


def sae_settings(names):
    """How the SAEs of one job are trained, by name."""
    return json.dumps({name: STUDY.saes[name].train.model_dump() for name in names})


def cache_of(sae):
    """The activation cache that one SAE is trained on, below the study's folder."""
    return f"activations/{STUDY.model.name}/{STUDY.hook_of(sae)}"


def manifest(wildcards):
    """What vouches for the activation cache that one SAE is trained on."""
    return f"results/{wildcards.study}/{cache_of(wildcards.sae)}/manifest.json"


def sae_path(wildcards):
    """Where one SAE is imported from."""
    return STUDY.saes[wildcards.sae].path


def sae_format(wildcards):
    """The format of an SAE that is imported."""
    return STUDY.saes[wildcards.sae].format


def corpus_inputs():
    """What the corpus is made from: nothing for `tales`, else the text and the model's tokenizer."""
    if STUDY.corpus.kind == "tales":
        return {}
    return {
        "text": STUDY.corpus.path,
        "model": f"results/{STUDY.study}/models/{STUDY.model.name}",
    }


def judge_inputs():
    """What the judge reads besides the completions: the model, where coherence is measured by its loss."""
    if STUDY.judge.kind != "lexical":
        return {}
    return {"model": f"results/{STUDY.study}/models/{STUDY.model.name}"}


def model_option(wildcards, input):
    """The command's option `--model`, where the rule has a model among its inputs."""
    return f"--model {input.model}" if "model" in input.keys() else ""


def goal_file(wildcards):
    """The YAML file that describes a goal."""
    return Path(workflow.basedir, STUDY.goals.directory, f"{wildcards.goal}.yaml")


def hook_options(wildcards):
    """The command's options `--hook`: all hooks are read in the same forward passes."""
    return " ".join(f"--hook {hook}" for hook in STUDY.hooks)


def shards(wildcards):
    """The shards of the activation cache at one hook: a fixed number of token blocks each."""
    suffix = {"parquet": "parquet", "hdf5": "h5"}[STUDY.activations.format]
    folder = f"results/{wildcards.study}/activations/{wildcards.model}/{wildcards.hook}"
    return [
        f"{folder}/shard-{shard:05d}.{suffix}" for shard in range(shard_count(STUDY))
    ]


def vector_source(wildcards):
    """The file that the vectors to measure are taken from: one that is named, or an SAE of the study."""
    vectors = STUDY.effects.vectors
    sae = vectors.sae or wildcards.sae
    weights = f"results/{wildcards.study}/saes/{sae}/sae_weights.safetensors"
    return vectors.path or weights


def effect_blocks(wildcards):
    """The blocks of one SAE's effects: a fixed number of vectors each."""
    folder = f"results/{wildcards.study}/effects/{wildcards.sae}/shards"
    return [
        f"{folder}/block-{block:04d}.safetensors" for block in range(block_count(STUDY))
    ]


wildcard_constraints:
    **{name: one_of(values) for name, values in NAMES.items()},
    block=r"\d+",
    shard=r"\d+",
    suffix="parquet|h5|csv",
