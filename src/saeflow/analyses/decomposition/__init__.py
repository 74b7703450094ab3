"""Directions of the residual stream in the decoders of SAEs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from saeflow.analyses.decomposition.settings import Decomposition
from saeflow.analyses.directions import hooks_of_vectors, models
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

TABLES = ("curves", "latents", "stability", "encoder", "fidelity")
"""Of one SAE."""
POOLED = ("fidelity", "differences", "curves")
"""Of all, those that differ in their seed alone as one."""
OF_DIRECTION = "decomposition/{decomposed_sae}/{measured_model}/{measured_direction}/edits.parquet"


def saes(study: Study) -> list[str]:
    """The SAEs that directions are decomposed in: those that read and write at the study's hook."""
    return [name for name in study.saes_of("sae") if study.hook_of(name) == study.hook]


def _outputs(study: Study, own: Decomposition) -> list[str]:
    if not saes(study):
        return []
    of_sae = [f"decomposition/{{decomposed_sae}}/{table}.parquet" for table in TABLES]
    edits = [OF_DIRECTION] if own.edits else []
    pooled = [f"decomposition/{table}.parquet" for table in POOLED]
    return ["decomposition/texts.parquet", *of_sae, *pooled, *edits]


def _complaints(study: Study, own: Decomposition) -> list[Complaint]:
    asked, key = own.directions, "decomposition.directions"
    complaints: list[Complaint] = []
    if not (asked.contrasts or asked.measured or asked.steering or asked.files):
        reason = "names no direction; give contrasts, measured, steering or files"
        complaints.append((key, reason))
    complaints += [(f"{key}.measured.{name}", reason) for name, reason in _unmeasured(study, own)]
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


def _unmeasured(study: Study, own: Decomposition) -> Iterator[tuple[str, str]]:
    """Directions that `directions` has none of, or none at the study's hook."""
    there, layer = study.directions, int(study.hook.split(".")[1])
    for name in own.directions.measured:
        if not there:
            yield name, "is of the analysis directions, which is not asked for; set it"
        elif name not in there.sources.names:
            yield (
                name,
                f"is no direction; directions.sources names {', '.join(there.sources.names)}",
            )
        elif not study.hook.endswith(".hook_resid_post"):
            yield name, f"is of the residual stream, and the study's hook is '{study.hook}'"
        elif name in there.sources.searched:
            if there.selection.layers and layer not in there.selection.layers:
                reason = f"layer {layer} of the study's hook"
                yield name, f"is not read after {reason}; add it in directions.selection.layers"
        elif (hook := hooks_of_vectors(study, there)[name]) != study.hook:
            yield name, f"is at {hook}, and SAEs are at the study's hook '{study.hook}'"


def _names(study: Study, own: Decomposition) -> dict[str, list[str]]:
    names = {"decomposed_sae": saes(study)}
    if study.directions:
        names["measured_model"] = models(study, study.directions)
        names["measured_direction"] = list(own.directions.measured)
    return names


ANALYSIS: Analysis[Study, Decomposition] = Analysis(
    key="decomposition",
    settings=Decomposition,
    builds_on=("steering", "directions"),
    names=_names,
    outputs=_outputs,
    complaints=_complaints,
    cached_saes=lambda study, own: saes(study),
    publishes=("decomposition/*/*.parquet", "decomposition/*/*/*/edits.parquet"),
)
