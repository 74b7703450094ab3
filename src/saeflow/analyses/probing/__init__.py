"""What probes tell of texts: from latents, from activations, and from what is random."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.probing.settings import Probing
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

WITHOUT, WITH = "activations", "activations and latents"
"""What a quiver's arrows read."""
SUMMARIES = ("summary", "differences", "quiver", "sets", "basis", "saes")


def saes(study: Study, own: Probing) -> list[str]:
    """The SAEs whose latents are probed; a crosscoder reads more than one activation."""
    able = study.own_saes_of("sae", "transcoder")
    return able if own.saes is None else [name for name in able if name in own.saes]


def hooks(study: Study, own: Probing) -> list[str]:
    """Where activations are probed: where these SAEs read, or the study's hook."""
    return list(dict.fromkeys([study.hook, *(study.hook_of(name) for name in saes(study, own))]))


def _complaints(study: Study, own: Probing) -> list[Complaint]:
    able = saes(study, own.model_copy(update={"saes": None}))
    return [
        (
            "probing.saes",
            f"'{name}' is no SAE of the study that reads its model; name one of {able}",
        )
        for name in own.saes or []
        if name not in able
    ]


ANALYSIS: Analysis[Study, Probing] = Analysis(
    key="probing",
    settings=Probing,
    names=lambda study, own: {"probed_set": own.sets, "probed_sae": saes(study, own)},
    outputs=lambda study, own: [
        *(f"probing/{table}.{end}" for table in SUMMARIES for end in ("parquet", "csv")),
        *(f"probing/{{probed_set}}/{table}.parquet" for table in ("results", "basis", "accuracy")),
        *(["probing/absorption.parquet"] if own.absorption else []),
    ],
    complaints=_complaints,
    publishes=("probing/*.parquet",),
)
