"""Tasks that a model takes from examples in its prompt, as vectors and as latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.tasks.settings import Tasks
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

TABLES = ("pairs", "heads", "sweep")
OF_A_TASK = ("curves", "codes")
OF_LATENTS = ("latents", "specificity", "firing")


def able(study: Study) -> list[str]:
    """The SAEs in which vectors can be cleaned: what they write can be added behind a layer."""
    return [
        name
        for name in study.own_saes_of("sae")
        if study.hook_of(name).endswith(".hook_resid_post")
    ]


def saes(study: Study, own: Tasks) -> list[str]:
    """The SAEs in which vectors are cleaned."""
    if own.cleaning is None:
        return []
    return able(study) if own.cleaning.saes is None else list(own.cleaning.saes)


def _complaints(study: Study, own: Tasks) -> list[Complaint]:
    possible = able(study)
    complaints: list[Complaint] = [
        (
            "tasks.cleaning.saes",
            f"'{name}' is no SAE of '{study.model.name}' at a hook_resid_post; name one of "
            f"{possible}, or set tasks.cleaning: null",
        )
        for name in saes(study, own)
        if name not in possible
    ]
    if own.cleaning and own.cleaning.saes is None and not possible:
        reason = "no SAE of the study reads a hook_resid_post of its model; set it to null"
        complaints.append(("tasks.cleaning", reason))
    if own.cleaning and "mean" not in own.vectors.kinds:
        reason = "lacks mean, which is what is cleaned; add it, or set tasks.cleaning: null"
        complaints.append(("tasks.vectors.kinds", reason))
    return complaints


ANALYSIS: Analysis[Study, Tasks] = Analysis(
    key="tasks",
    settings=Tasks,
    names=lambda study, own: {"task": own.lists.names, "cleaned_sae": saes(study, own)},
    outputs=lambda study, own: [
        *(f"tasks/{table}.parquet" for table in TABLES),
        *(f"tasks/{{cleaned_sae}}/{{task}}/{table}.parquet" for table in OF_A_TASK),
        *(f"tasks/{{cleaned_sae}}/{table}.parquet" for table in OF_LATENTS),
    ],
    complaints=_complaints,
    publishes=("tasks/*.parquet", "tasks/*/*.parquet", "tasks/*/*/*.parquet"),
)
