"""What the rules of a study of chess share beside `common.smk`."""

NAMES = {
    "study": [STUDY.study],
    "model": [STUDY.model.name],
    "sae": list(STUDY.saes),
}

# The figures of the study, and the tables each is drawn from.
FIGURES = {
    "chess_accuracy": ["models/{model}.accuracy.parquet"],
    "chess_board_auc": ["chess/{sae}/associations.parquet"],
    "chess_skill": ["chess/{sae}/skill.parquet"],
    "chess_awareness": ["chess/{sae}/awareness.parquet"],
    "chess_interventions": ["chess/{sae}/interventions.parquet"],
}
if trained := [name for name, sae in STUDY.saes.items() if sae.train]:
    FIGURES["sae_training"] = [f"saes/{name}/training.parquet" for name in trained]
NAMES["figure"] = list(FIGURES)

# The files of its rules.
RULES = [
    "chess_player",
    "chess_saes",
    "chess_concepts",
    "chess_skill",
    "chess_interventions",
    "chess_transitions",
    *(["chess_engine"] if STUDY.engine else []),
    "chess_report",
]

# What is known of its SAEs.
SAE_TABLES = ["saes/{sae}/metrics.json"]

# What the study is run for.
RESULTS = ["config.yaml", "provenance.json", "models/{model}.accuracy.parquet"]
RESULTS += ["saes/{sae}/metrics.json", "chess/{sae}/interventions.parquet"]
RESULTS += ["chess/transitions.parquet", "figures/{figure}.png", "report/index.html"]
if STUDY.engine:
    RESULTS += ["chess/engine.parquet", "chess/blunders.parquet"]
if STUDY.fine_tune:
    RESULTS += ["chess/fine_tuning.parquet"]


localrules:
    all,
    activations,
    saes,
    plots,


POSITIONS = "results/{study}/chess/positions.parquet"
PLAYER = f"results/{{study}}/models/{STUDY.model.name}"


def player_inputs(name="model", suffix=""):
    """Inputs of whoever runs the player: its folder, whose age says nothing, and the checksums of its files."""
    folder = f"{PLAYER}{suffix}"
    return {name: ancient(folder), f"{name}_checksums": f"{folder}.checksums.json"}


def sae_hook(wildcards):
    """Where one SAE reads."""
    return STUDY.hook_of(wildcards.sae)


def engine_moves(section):
    """What an engine says of positions, for a section whose right move is the engine's; nothing for any other."""
    best = getattr(STUDY, section).correct == "best"
    return "results/{study}/chess/engine.parquet" if best else []


def engine_option(wildcards, input):
    """The command's option `--engine`, where there is such an input."""
    return ["--engine", input.engine] if input.engine else []


def hook_options(wildcards):
    """The command's options `--hook`: all hooks are read in the same forward passes."""
    return repeated("--hook", STUDY.hooks)


def report_sources(wildcards):
    """Everything that the report shows; its command is told the study's folder and finds these files in it."""
    tables = ["concepts", "associations", "probes", "boards", "skill", "interventions"]
    asked = ["chess/engine.parquet", "chess/blunders.parquet"] if STUDY.engine else []
    tuned = ["chess/fine_tuning.parquet"] if STUDY.fine_tune else []
    return files(
        *asked,
        *tuned,
        "config.yaml",
        "provenance.json",
        "chess/positions.parquet",
        "chess/transitions.parquet",
        "models/{model}.accuracy.parquet",
        "saes/{sae}/cfg.json",
        "saes/{sae}/metrics.json",
        *(f"chess/{{sae}}/{table}.parquet" for table in tables),
        "figures/{figure}.png",
        "figures/{figure}.svg",
        "figures/{figure}.csv",
        *sorted({table for tables in FIGURES.values() for table in tables}),
    )
