"""What sets models apart: what their activations, predictions and weights tell without a
dictionary, which latents of crosscoders belong to which, and what these and latents of the
difference cause."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.analyses.diffing.settings import Diffing
from saeflow.config.agreement import too_long_a_completion
from saeflow.config.face import Analysis
from saeflow.config.model_files import WIDTH_NAMES, size_in
from saeflow.config.prompting import about_prompts
from saeflow.config.section import Complaint
from saeflow.config.sections.prompts import Message

if TYPE_CHECKING:
    from saeflow.analyses import Study

OF_MODEL = (
    *("divergence.parquet", "places.parquet", "tokens.parquet"),
    *("differences.parquet", "components.parquet", "lens.parquet", "difference.safetensors"),
    *("weights.parquet", "steered.parquet", "continuations.parquet"),
)
OF_CROSSCODER = (
    *("latents.parquet", "classes.parquet", "causal.parquet"),
    *("contexts.parquet", "decoders.parquet", "scatter.parquet"),
)
OF_PAIR = ("latents.parquet", "classes.parquet")


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
    said = own.baselines.steering
    key, tokens = "diffing.baselines.steering", said.prompt_tokens + said.new_tokens
    complaints += too_long_a_completion(study, key, tokens)
    complaints += _about_widths(study, own)
    return [*complaints, *_about_pairs(study, own), *_about_prompts(study, own)]


def _about_widths(study: Study, own: Diffing) -> list[Complaint]:
    """Models of another width than the base, as far as widths are known."""
    first = base(study, own)
    width = _width(study, first)
    return [
        (
            f"diffing.models.{place}" if own.models else "diffing",
            f"'{name}' is {other} wide and '{first}' {width}; compare models of one width",
        )
        for place, name in enumerate(compared(study, own))
        if width and (other := _width(study, name)) and other != width
    ]


def _width(study: Study, name: str) -> int | None:
    if name not in study.all_models:
        return None
    origin = study.origin_of(name)
    if origin.train:
        return origin.train.d_model
    return size_in(Path(origin.path), WIDTH_NAMES) if origin.path else None


def _about_prompts(study: Study, own: Diffing) -> list[Complaint]:
    """Prompts that cannot be read, or that the base cannot write as messages."""
    asked, key = own.causal.prompts, "diffing.causal.prompts"
    if not asked:
        return []
    complaints: list[Complaint] = []
    for name in (each for each in ("published", "package") if getattr(asked, each)):
        reason = "prompts are read from files here; get the file, and name it in path"
        complaints.append((f"{key}.{name}", reason))
    if asked.value:
        complaints.append((f"{key}.value", "prompts have classes; name label"))
    if asked.speaker == "user" and (first := base(study, own)) in study.all_models:
        spoken = [Message(role="user", content="?")]
        reasons = about_prompts(study.origin_of(first), f"{key}.speaker", [spoken])
        complaints += [(f"{key}.speaker", f"'user' {why}; or say nobody") for _, why in reasons]
    return complaints


def _about_pairs(study: Study, own: Diffing) -> list[Complaint]:
    """SAEs that are matched and are not of the base and of a compared model at one hook."""
    complaints: list[Complaint] = []
    first, others = base(study, own), compared(study, own)
    for name, saes in own.matching.pairs.items():
        key = f"diffing.matching.pairs.{name}"
        before = len(complaints)
        for place, sae in enumerate(saes):
            wanted, which = (others, "a compared model") if place else ([first], "the base")
            if sae not in study.saes:
                reason = f"there is no SAE '{sae}'; saes names {', '.join(study.saes)}"
            elif (kind := study.saes[sae].kind) != "sae":
                reason = f"'{sae}' is a {kind}, and latents of SAEs are matched; name one"
            elif (read := study.sources_of(sae)[0].model) not in wanted:
                reason = f"'{sae}' reads '{read}', not {which}, {' or '.join(wanted)}; name another"
            else:
                continue
            complaints.append((f"{key}.{place}", reason))
        hooks = [study.hook_of(sae) for sae in saes] if len(complaints) == before else []
        if len(set(hooks)) > 1:
            reason = f"'{saes[0]}' reads {hooks[0]}, '{saes[1]}' {hooks[1]}; name SAEs of one hook"
            complaints.append((key, reason))
    return complaints


ANALYSIS: Analysis[Study, Diffing] = Analysis(
    key="diffing",
    settings=Diffing,
    names=lambda study, own: {
        "compared_model": compared(study, own),
        "diffed_sae": crosscoders(study, own),
        "matched_pair": list(own.matching.pairs),
    },
    outputs=lambda study, own: [
        *(f"diffing/models/{{compared_model}}/{file}" for file in OF_MODEL),
        *(
            f"diffing/saes/{{diffed_sae}}/{file}"
            for file in OF_CROSSCODER
            if crosscoders(study, own)
        ),
        *(f"diffing/matching/{{matched_pair}}/{file}" for file in OF_PAIR if own.matching.pairs),
    ],
    complaints=_complaints,
    publishes=("diffing/models/*/*", "diffing/saes/*/*", "diffing/matching/*/*"),
)
