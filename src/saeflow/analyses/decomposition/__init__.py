"""Directions of the residual stream in the decoders of SAEs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.decomposition.settings import Decomposition
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

TABLES = ("curves", "latents", "stability", "encoder", "fidelity")
"""Of one SAE."""


def saes(study: Study) -> list[str]:
    """The SAEs that directions are decomposed in: those that read and write at the study's hook."""
    return [name for name in study.saes_of("sae") if study.hook_of(name) == study.hook]


def _outputs(study: Study, own: Decomposition) -> list[str]:
    of_sae = [f"decomposition/{{decomposed_sae}}/{table}.parquet" for table in TABLES]
    return ["decomposition/texts.parquet", *of_sae] if saes(study) else []


def _complaints(study: Study, own: Decomposition) -> list[Complaint]:
    asked, key = own.directions, "decomposition.directions"
    complaints: list[Complaint] = []
    if not (asked.contrasts or asked.steering or asked.files):
        reason = "names no direction; give contrasts, steering or files"
        complaints.append((key, reason))
    if not saes(study):
        reason = f"needs an SAE that reads '{study.hook}'; saes names none"
        complaints.append(("decomposition", reason))
    if asked.steering and not study.steering:
        reason = "names methods of steering, which is not asked for; set steering, or remove it"
        complaints.append((f"{key}.steering", reason))
    there = study.steering.vectors.methods if study.steering else asked.steering
    for place, method in enumerate(asked.steering):
        if method not in there:
            reason = f"'{method}' is not in steering.vectors.methods"
            complaints.append((f"{key}.steering.{place}", reason))
    for sae in asked.corpora:
        if sae not in study.saes:
            reason = f"there is no SAE '{sae}'; saes names {', '.join(study.saes)}"
            complaints.append((f"{key}.corpora.{sae}", reason))
    return complaints


ANALYSIS: Analysis[Study, Decomposition] = Analysis(
    key="decomposition",
    settings=Decomposition,
    builds_on=("steering",),
    names=lambda study, own: {"decomposed_sae": saes(study)},
    outputs=_outputs,
    complaints=_complaints,
    cached_saes=lambda study, own: saes(study),
    publishes=("decomposition/*/*.parquet",),
)
