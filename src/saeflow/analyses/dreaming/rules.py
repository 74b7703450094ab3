"""What the rules of dreaming say of a study."""

from __future__ import annotations

from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.dreaming import WITHOUT_SAE
from saeflow.config.locations import SAE_FILES
from saeflow.workflow import Workflow, repeated


def sae_of(flow: Workflow[Study], name: str) -> list[Any]:
    """The weights of an SAE whose latents are dreamed of."""
    return [] if name == WITHOUT_SAE else [flow.located(f"saes/{name}/{SAE_FILES[1]}")]


def examples_of(flow: Workflow[Study], name: str) -> list[str]:
    """Where its latents fire, if that is asked for."""
    there = flow.names.get("example_sae", ())
    files = ("contexts", "latents")
    return [
        f"results/{flow.study.study}/examples/{name}/{file}.parquet"
        for file in files
        if name in there
    ]


def direction_files(flow: Workflow[Study], name: str) -> dict[str, str]:
    """Files of directions, by name."""
    own = flow.study.dreaming
    if name != WITHOUT_SAE or not own:
        return {}
    return {title: flow.sought(path) for title, path in own.targets.directions.items()}


def source_options(flow: Workflow[Study], name: str, sae: list[str], examples: list[str]) -> Any:
    """The files of an SAE and of directions, as the command's options."""
    folder = [str(file).rpartition("/")[0] for file in [*sae[:1], *examples[:1]]]
    named = [option for option, there in (("--sae", sae), ("--examples", examples)) if there]
    options = [each for pair in zip(named, folder, strict=True) for each in pair]
    files = [f"{title}={path}" for title, path in direction_files(flow, name).items()]
    return [*options, *repeated("--direction", files)]


def hook_of(study: Study, name: str) -> str:
    """Where an SAE reads; of directions the study's hook."""
    return study.hook if name == WITHOUT_SAE else study.hook_of(name)
