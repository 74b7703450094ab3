"""Configuration, wildcards and the few functions that rules share."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "src")))

from saeflow.config import check_study
from saeflow.config.counts import block_count, shard_count
from saeflow.config.locations import fetched, location
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
    "sae": list(STUDY.saes),
    "target_sae": [STUDY.steering_sae],
    "goal": STUDY.goals.names,
    "method": STUDY.steering.methods,
    "split": ["model", "sae", "eval"],
}


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


MODEL = f"models/{STUDY.model.name}"
CACHE = f"activations/{STUDY.model.name}/{STUDY.hook}/manifest.json"
STEERING_SAE = f"saes/{STUDY.steering_sae}/sae_weights.safetensors"
APPROXIMATOR = f"approximators/{STUDY.steering_sae}/approximator.safetensors"


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
    FIGURES["sae_recovery"] = [
        f"saes/{name}/recovery.parquet" for name in STUDY.saes_of("sae", "transcoder")
    ]
if crosscoders := STUDY.saes_of("crosscoder"):
    FIGURES["crosscoder_sources"] = [
        f"saes/{name}/sources.parquet" for name in crosscoders
    ]
if trained := [
    name
    for name, sae in STUDY.saes.items()
    if sae.train and not is_fetched(f"saes/{name}/cfg.json")
]:
    FIGURES["sae_training"] = [f"saes/{name}/training.parquet" for name in trained]
if STUDY.model.train and not is_fetched(MODEL):
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
    publish,


def files(*paths):
    """Every file of the study that `paths` name, with `{goal}`, `{method}`, … filled in each way."""
    return [located(file) for path in paths for file in collect(path, **NAMES)]


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


GOAL_FILES = [
    Path(workflow.basedir, STUDY.goals.directory, f"{goal}.yaml")
    for goal in STUDY.goals.names
]


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


def report_sources(wildcards):
    """Everything that the report shows; its command is told the study's folder and finds these files in it."""
    return [
        *files(
            "config.yaml",
            "provenance.json",
            "models/{model}.metrics.json",
            "saes/{sae}/cfg.json",
            "saes/{sae}/sae_weights.safetensors",
            "saes/{sae}/metrics.json",
            "approximators/{target_sae}/metrics.json",
            "approximators/{target_sae}/latents.parquet",
            "effects/{target_sae}/baseline.safetensors",
            "effects/{target_sae}/effects.h5",
            "steering/{goal}/latents.json",
            "steering/{goal}/side_effects.parquet",
            "steering/{goal}/{method}/completions.parquet",
            "steering/{goal}/{method}/scores.parquet",
            "steering/comparisons.parquet",
            *JUDGED,
            "figures/{figure}.png",
            "figures/{figure}.svg",
            "figures/{figure}.csv",
            *sorted({table for tables in FIGURES.values() for table in tables}),
        ),
        *GOAL_FILES,
    ]


def published_files(wildcards):
    """What the study publishes, of what it computed itself."""
    contents = {
        "effects": ["effects/{target_sae}/effects.h5"],
        "approximator": ["approximators/{target_sae}/approximator.safetensors"],
        "saes": ["saes/{sae}/cfg.json", "saes/{sae}/metrics.json"],
        "vectors": ["steering/{goal}/{method}/vector.safetensors"],
        "tables": ["steering/best.parquet"],
        "figures": ["figures/{figure}.png"],
    }
    named = [path for content in STUDY.publish.contents for path in contents[content]]
    made = files("config.yaml", "provenance.json", *named)
    return [file for file in made if file.startswith("results/")]


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


def models_of(wildcards):
    """The models that a crosscoder reads."""
    read = dict.fromkeys(source.model for source in STUDY.sources_of(wildcards.sae))
    return [located(f"models/{model}") for model in read]


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


def corpus_inputs():
    """What the corpus is made from: nothing for `tales`, else the text and the model's tokenizer."""
    if STUDY.corpus.kind == "tales":
        return {}
    return {
        "text": STUDY.corpus.path or artifact("corpus/text"),
        "model": artifact(MODEL),
    }


def judge_inputs():
    """What the judge reads besides the completions: the model, where coherence is measured by its loss."""
    if STUDY.judge.kind != "lexical":
        return {}
    return {"model": artifact(MODEL)}


def text_option(wildcards, input):
    """The command's option `--text`, where the text was fetched."""
    return f" --text {input.text}" if STUDY.corpus.dataset else ""


def model_option(wildcards, input):
    """The command's option `--model`, where the rule has a model among its inputs."""
    return f"--model {input.model}" if "model" in input.keys() else ""


def goal_file(wildcards):
    """The YAML file that describes a goal."""
    return Path(workflow.basedir, STUDY.goals.directory, f"{wildcards.goal}.yaml")


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
    return vectors.path or located(f"saes/{sae}/sae_weights.safetensors")


def goal_vectors(wildcards):
    """A goal's steering vectors, one per method."""
    return [
        located(f"steering/{wildcards.goal}/{method}/vector.safetensors")
        for method in STUDY.steering.methods
    ]


def published(*keys):
    """The section `published` of what is fetched, as JSON; `{sae}` among the keys stands for the wildcard."""

    def of(wildcards):
        value = STUDY
        for key in keys:
            key = key.format(**wildcards)
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        return (
            value.published.model_dump_json(exclude_defaults=True)
            if value.published
            else ""
        )

    return of


def effect_blocks(wildcards):
    """The blocks of one SAE's effects: a fixed number of vectors each."""
    folder = f"results/{wildcards.study}/effects/{wildcards.sae}/shards"
    return [
        f"{folder}/block-{block:04d}.safetensors" for block in range(block_count(STUDY))
    ]


wildcard_constraints:
    **{name: one_of(values) for name, values in NAMES.items() if name != "model"},
    model=one_of(STUDY.all_models),
    hook=one_of({hook for hooks in STUDY.caches.values() for hook in hooks}),
    block=r"\d+",
    shard=r"\d+",
    suffix="parquet|h5|csv",
    source="[^/]+",
