"""What the rules of a study of language share beside `common.smk`."""

import hashlib

from saeflow.config import read_goal, read_token_sets
from saeflow.config.counts import block_count
from saeflow.config.sections import PLANTED

# What may stand where `{goal}`, `{method}`, … stands in the target `files(...)`.
NAMES = {
    "study": [STUDY.study],
    "model": [STUDY.model.name],
    "sae": list(STUDY.saes),
    "target_sae": [STUDY.steering_sae],
    "example_sae": STUDY.example_saes,
    "lens_sae": STUDY.lens_saes,
    "goal": STUDY.goals.names,
    "method": STUDY.steering.methods,
    "split": ["model", "sae", "eval"],
}


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
# The tables of the logit lens of one SAE, and all files that tell of latents.
LENS = ["latents", "tokens", "histograms", "scores", "enrichment", "splits"]
LATENTS = ["examples/{example_sae}/latents.parquet"]
LATENT_DETAILS = [
    f"examples/{{example_sae}}/{table}.parquet"
    for table in ["contexts", "histogram", "cofiring"]
]
if STUDY.lens_saes:
    LATENT_DETAILS.append("logit_lens/vocabulary.parquet")
    LENS += ["gsea"] if STUDY.logit_lens.gsea else []
    LATENTS += [f"logit_lens/{{lens_sae}}/{table}.parquet" for table in LENS]
    LATENTS += ["logit_lens/{lens_sae}/causal_latents.parquet"]
    FIGURES["lens_moments"] = ["logit_lens/{lens_sae}/latents.parquet"]
if STUDY.steering_sae in STUDY.lens_saes:
    FIGURES |= {
        "lens_histograms": ["logit_lens/{target_sae}/splits.parquet"],
        "lens_manhattan": [
            "logit_lens/sets.parquet",
            "logit_lens/{target_sae}/enrichment.parquet",
        ],
        "lens_heat_map": [
            "logit_lens/sets.parquet",
            "logit_lens/{target_sae}/enrichment.parquet",
            "logit_lens/{target_sae}/scores.parquet",
        ],
        "lens_causal": [
            "logit_lens/{target_sae}/causal.parquet",
            "logit_lens/{target_sae}/causal_latents.parquet",
        ],
    }
if len(STUDY.lens_saes) > 1:
    FIGURES["lens_layers"] = ["logit_lens/{lens_sae}/latents.parquet"]
if STUDY.corpus.kind == "tales":
    FIGURES["sae_recovery"] = [
        f"saes/{name}/recovery.parquet" for name in STUDY.saes_of("sae", "transcoder")
    ]
if len(STUDY.saes) > 1:
    FIGURES["sae_frontier"] = ["saes/summary.parquet"]
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


# The files of its rules.
RULES = [
    "published",
    "corpus",
    "models",
    "activations",
    "sae_metrics",
    "examples",
    "logit_lens",
    "effects",
    "approximators",
    "steering",
    "judging",
    "publish",
    "report",
]

# What is known of its SAEs.
SAE_TABLES = ["saes/{sae}/metrics.json", "saes/summary.parquet"]

# What the study is run for; ratings only where methods are compared side by side.
JUDGED = ["steering/summary.parquet", "steering/best.parquet"]
JUDGED += ["steering/ratings.parquet"] if STUDY.judge.pairs else []
RESULTS = ["config.yaml", "provenance.json", *LATENTS, *JUDGED]
RESULTS += ["figures/{figure}.png", "report/index.html"]


localrules:
    all,
    activations,
    saes,
    examples,
    logit_lens,
    effects,
    approximator,
    evaluate,
    plots,
    publish,


GOAL_FILES = [
    sought(STUDY.goals.directory, f"{goal}.yaml") for goal in STUDY.goals.names
]
SET_FILES = [sought(file) for file in STUDY.logit_lens.sets] if STUDY.lens_saes else []
# What is wrong with these files is told now, not by the job that reads them hours later. They are no inputs but params,
# as settings are: what they say is a trigger, and where they lie and how old they are is none. So a fresh checkout of
# the same commit makes nothing anew.
try:
    GOALS = dict(zip(STUDY.goals.names, map(read_goal, GOAL_FILES)))
    TOKEN_SETS = [read_token_sets(file) for file in SET_FILES]
except SaeflowError as error:
    raise WorkflowError(str(error))


def sae_descriptions():
    """What each SAE is, by name, as JSON."""

    def named(sources):
        return ", ".join(
            f"{model}:{hook}" if STUDY.models else hook for model, hook in sources
        )

    return json.dumps(
        {
            name: {
                "kind": sae.kind,
                "reads": named(STUDY.sources_of(name)),
                "writes": named(
                    STUDY.caches_of(name)[-1:] if sae.target else STUDY.sources_of(name)
                ),
                "training": sae.train.model_dump() if sae.train else None,
            }
            for name, sae in STUDY.saes.items()
        }
    )


def report_sources(wildcards):
    """Everything that the report shows; its command is told the study's folder and finds these files in it."""
    return files(
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
        "steering/targets.parquet",
        *LATENTS,
        *LATENT_DETAILS,
        *JUDGED,
        "figures/{figure}.png",
        "figures/{figure}.svg",
        "figures/{figure}.csv",
        *sorted({table for tables in FIGURES.values() for table in tables}),
    )


def published_files(wildcards):
    """What the study publishes, of what it computed itself."""
    contents = {
        "effects": ["effects/{target_sae}/effects.h5"],
        "approximator": ["approximators/{target_sae}/approximator.safetensors"],
        "saes": ["saes/{sae}/cfg.json"],
        "vectors": ["steering/{goal}/{method}/vector.safetensors"],
        "tables": ["steering/best.parquet"],
        "figures": ["figures/{figure}.png"],
    }
    named = [path for content in STUDY.publish.contents for path in contents[content]]
    made = files("config.yaml", "provenance.json", *named)
    own = [file for file in made if file.startswith("results/")]
    measured = [file for file in own if Path(file).name == "cfg.json"]
    return [*own, *(str(Path(file).with_name("metrics.json")) for file in measured)]


def models_of(wildcards):
    """The models that a crosscoder reads."""
    read = dict.fromkeys(source.model for source in STUDY.sources_of(wildcards.sae))
    return [located(f"models/{model}") for model in read]


def checksums_of_models(wildcards):
    """The checksums of these models' files."""
    read = dict.fromkeys(source.model for source in STUDY.sources_of(wildcards.sae))
    return [located(f"models/{model}.checksums.json") for model in read]


# What caches leave out, measurements leave out, too.
EXCLUSION = settings("activations", only=["exclude", "exclude_norm_above"])


def cached_places():
    """Model and hook of every cache, if norms at hooks tell what is left out."""
    by_norm = STUDY.activations.exclude_norm_above is not None
    caches = STUDY.caches.items() if by_norm else ()
    return [(model, hook) for model, hooks in caches for hook in hooks]


def corpus_inputs():
    """What the corpus is made from: nothing for `tales`, else the text and the model's tokenizer."""
    if STUDY.corpus.kind == "tales":
        return {}
    return {
        "text": (
            named("corpus", "path") if STUDY.corpus.path else artifact("corpus/text")
        ),
        **model_inputs(MODEL),
    }


def judge_inputs():
    """What the judge reads besides the completions: the model, where coherence is measured by its loss."""
    if STUDY.judge.kind != "lexical":
        return {}
    return model_inputs(MODEL)


def planted_inputs():
    """What vectors for planted topics are built from: the latents that detect them."""
    if not any(method.endswith(PLANTED) for method in STUDY.steering.methods):
        return {}
    return {"recovery": f"results/{{study}}/saes/{STUDY.steering_sae}/recovery.parquet"}


def planted_options(wildcards, input):
    """The same for a command, and the goal's file, which names its topic."""
    if "recovery" not in input.keys():
        return []
    file = goal_file(wildcards, input)
    return ["--recovery", input.recovery, "--goal-file", file]


def text_option(wildcards, input):
    """The command's option `--text`, where the text was fetched."""
    return ["--text", input.text] if STUDY.corpus.dataset else []


def model_option(wildcards, input):
    """The command's option `--model`, where the rule has a model among its inputs."""
    return ["--model", input.model] if "model" in input.keys() else []


def goal_file(wildcards, input):
    """A param: the YAML file that describes a goal. Its place triggers nothing, as that of all files here: Snakemake
    compares no param of a function that reads `input`."""
    return GOAL_FILES[STUDY.goals.names.index(wildcards.goal)]


def goal_files(wildcards, input):
    """A param: the same of all goals."""
    return GOAL_FILES


def goals_folder(wildcards, input):
    """A param: where these files lie."""
    return os.path.dirname(GOAL_FILES[0])


def set_files(wildcards, input):
    """A param: the files of token sets."""
    return SET_FILES


def goal_said(wildcards):
    """A param, and so a trigger: what is said of a goal."""
    return digest([GOALS[wildcards.goal]])


def goals_said(wildcards):
    """A param: the same of all goals."""
    return digest(GOALS.values())


def sets_said(wildcards):
    """A param: what is said of token sets."""
    return digest(of for sets in TOKEN_SETS for of in sets.values())


def digest(sections):
    """The SHA-256 of what sections say."""
    said = [section.model_dump_json() for section in sections]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


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


def calls(wildcards, input):
    """A param: how an endpoint is called and what may be spent, as JSON. No change of it reruns anything: Snakemake
    compares no param of a function that reads `input`, as this one says that it does.
    """
    return STUDY.calls.model_dump_json(ensure_ascii=True)


def published(*keys):
    """A param: the section `published` of what is fetched, as JSON."""

    def of(wildcards):
        section = of_study((*keys, "published"), wildcards)
        return section.model_dump_json(exclude_defaults=True, ensure_ascii=True)

    return of


def width_option(wildcards):
    """The command's option `--d-sae`, for an SAE whose width the config tells."""
    width = STUDY.saes[wildcards.sae].declared_width
    return ["--d-sae", width] if width else []


def report_options(wildcards, input):
    """The command's option `--goals`."""
    return ["--goals", goals_folder(wildcards, input)]


report_said = goals_said


def effect_blocks(wildcards):
    """The blocks of one SAE's effects: a fixed number of vectors each."""
    folder = f"results/{wildcards.study}/effects/{wildcards.sae}/shards"
    numbers = range(block_count(STUDY))
    return [f"{folder}/block-{block:04d}.safetensors" for block in numbers]
