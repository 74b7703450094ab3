"""Prompts that move a latent most, and are likely text at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.dreaming.settings import Dreaming
from saeflow.config.agreement import too_long_a_completion
from saeflow.config.face import Analysis
from saeflow.config.prompting import about_prompts
from saeflow.config.section import Complaint
from saeflow.config.sections import Message

if TYPE_CHECKING:
    from saeflow.analyses import Study

TABLES = ("fronts", "progress", "contexts", "targets")
WITHOUT_SAE = "without-sae"
"""Stands for an SAE where directions and logits are dreamed of."""


def saes(study: Study, own: Dreaming) -> list[str]:
    """The SAEs whose latents are dreamed of."""
    if own.targets.saes is not None:
        return list(own.targets.saes)
    named = [*own.targets.latents, *(each.sae for each in own.targets.together.values())]
    return list(dict.fromkeys(named)) or [study.target_sae]


def dreamed(study: Study, own: Dreaming) -> list[str]:
    """Whatever is dreamed of, a folder each."""
    apart = own.targets.directions or own.targets.logits
    return [*saes(study, own), *([WITHOUT_SAE] if apart else [])]


def _complaints(study: Study, own: Dreaming) -> list[Complaint]:
    asked, key = own.targets, "dreaming.targets"
    complaints: list[Complaint] = []
    for name in saes(study, own):
        if name not in study.saes:
            reason = f"there is no SAE '{name}'; saes names {', '.join(study.saes)}"
            complaints.append((f"{key}.saes", reason))
        elif study.saes[name].kind != "sae":
            reason = f"'{name}' is a {study.saes[name].kind}, and one prompt moves an SAE; name one"
            complaints.append((f"{key}.saes", reason))
        elif study.saes[name].model not in (None, study.model.name):
            reason = f"'{name}' reads '{study.saes[name].model}'; name one of '{study.model.name}'"
            complaints.append((f"{key}.saes", reason))
    if WITHOUT_SAE in study.saes:
        complaints.append((f"saes.{WITHOUT_SAE}", "is a name that dreaming needs; choose another"))
    of_latents = [(f"{key}.latents.{name}", name, held) for name, held in asked.latents.items()]
    of_latents += [
        (f"{key}.together.{name}", each.sae, each.latents) for name, each in asked.together.items()
    ]
    for place, name, latents in of_latents:
        if name not in saes(study, own):
            complaints.append((place, f"'{name}' is not in {key}.saes; add it there"))
        elif (width := study.saes[name].declared_width) and max(latents, default=0) >= width:
            reason = f"{max(latents)} is not below {width}, the latents of '{name}'"
            complaints.append((place, reason))
    complaints += [
        (f"{key}.together.{name}", "is the number of a latent; give it a name with a letter")
        for name in asked.together
        if name.isdigit()
    ]
    complaints += [
        (f"{key}.logits.{name}", "is the name of a direction, too; choose another")
        for name in asked.logits
        if name in asked.directions
    ]
    if own.frame.speaker == "user":
        spoken = [Message(role="user", content="?")]
        reasons = about_prompts(study.model, "dreaming.frame.speaker", [spoken])
        complaints += [
            ("dreaming.frame.speaker", f"'user' {reason}; or say nobody") for _, reason in reasons
        ]
    return complaints + too_long_a_completion(study, "dreaming.search.length", own.search.length)


ANALYSIS: Analysis[Study, Dreaming] = Analysis(
    key="dreaming",
    settings=Dreaming,
    names=lambda study, own: {"dreamed": dreamed(study, own)},
    outputs=lambda study, own: [f"dreaming/{{dreamed}}/{table}.parquet" for table in TABLES],
    complaints=_complaints,
    publishes=("dreaming/*/*.parquet",),
)
