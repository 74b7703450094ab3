"""What sets models apart: what their activations, predictions and weights tell without a
dictionary, which latents of crosscoders belong to which, and what these and latents of the
difference cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.diffing.settings import Diffing
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

OF_MODEL = (
    *("divergence.parquet", "places.parquet", "tokens.parquet"),
    *("differences.parquet", "components.parquet", "lens.parquet", "difference.safetensors"),
    *("weights.parquet", "steered.parquet", "continuations.parquet"),
)
OF_CROSSCODER = (
    *("latents.parquet", "classes.parquet", "causal.parquet"),
    *("contexts.parquet", "decoders.parquet"),
)


def base(study: Study, own: Diffing) -> str:
    """The model that others are compared with."""
    return own.base or study.model.name


def compared(study: Study, own: Diffing) -> list[str]:
    """The models that are compared with it."""
    return list(own.models or [name for name in study.all_models if name != base(study, own)])


def crosscoders(study: Study, own: Diffing) -> list[str]:
    """The crosscoders and SAEs of differences whose latents are looked at."""
    if own.saes is not None:
        return list(own.saes)
    able = study.saes_of("crosscoder", "difference")
    return [name for name in able if not _unfit(study, own, name)]


def _unfit(study: Study, own: Diffing, name: str) -> str | None:
    """Why a crosscoder, or an SAE of a difference, tells nothing of the models that are
    compared."""
    sources, first = study.sources_of(name), base(study, own)
    read = {source.model for source in sources}
    if first not in read:
        return f"'{name}' does not read '{first}', which others are compared with"
    if study.saes[name].kind == "difference" and sources[0].model != first:
        return f"'{name}' takes '{sources[0].model}' away from '{first}'; name '{first}' first"
    if not read & set(compared(study, own)):
        others = ", ".join(compared(study, own))
        return f"'{name}' reads '{first}' and none of {others}"
    return None


def _complaints(study: Study, own: Diffing) -> list[Complaint]:
    complaints: list[Complaint] = []
    first, there = base(study, own), ", ".join(study.all_models)
    if first not in study.all_models:
        reason = f"there is no model '{first}'; model and models name {there}"
        complaints.append(("diffing.base", reason))
    for place, name in enumerate(own.models or ()):
        key = f"diffing.models.{place}"
        if name not in study.all_models:
            complaints.append((key, f"there is no model '{name}'; model and models name {there}"))
        elif name == first:
            complaints.append((key, f"'{name}' is what others are compared with; name another"))
    if not compared(study, own):
        reason = f"needs a model beside '{first}'; name one in models, or leave diffing out"
        complaints.append(("diffing", reason))
    for place, name in enumerate(own.saes or ()):
        key = f"diffing.saes.{place}"
        if name not in study.saes:
            reason = f"there is no SAE '{name}'; saes names {', '.join(study.saes)}"
            complaints.append((key, reason))
        elif (sae := study.saes[name]).kind not in ("crosscoder", "difference"):
            reason = (
                f"'{name}' is a {sae.kind}; name a crosscoder, which has saes.<name>.models, or "
                "an SAE with saes.<name>.difference"
            )
            complaints.append((key, reason))
        elif unfit := _unfit(study, own, name):
            complaints.append((key, f"{unfit}; name another"))
    return complaints


ANALYSIS: Analysis[Study, Diffing] = Analysis(
    key="diffing",
    settings=Diffing,
    names=lambda study, own: {
        "compared_model": compared(study, own),
        "diffed_sae": crosscoders(study, own),
    },
    outputs=lambda study, own: [
        *(f"diffing/models/{{compared_model}}/{file}" for file in OF_MODEL),
        *(
            f"diffing/saes/{{diffed_sae}}/{file}"
            for file in OF_CROSSCODER
            if crosscoders(study, own)
        ),
    ],
    complaints=_complaints,
    publishes=("diffing/models/*/*", "diffing/saes/*/*"),
)
