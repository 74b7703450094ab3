"""What the rules of a study of chess share beside `common.smk`."""

from snakemake.io import ancient

POSITIONS = "results/{study}/games/positions.parquet"
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
    return "results/{study}/engine/evaluations.parquet" if best else []


def engine_option(wildcards, input):
    """The command's option `--engine`, where there is such an input."""
    return ["--engine", input.engine] if input.engine else []


def hook_options(wildcards):
    """The command's options `--hook`: all hooks are read in the same forward passes."""
    return repeated("--hook", STUDY.hooks)
