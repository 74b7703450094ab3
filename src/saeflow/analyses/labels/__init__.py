"""Words for latents: labels from several sources, each with scores that say whether to believe
it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses import logit_lens
from saeflow.analyses.labels.settings import Labels
from saeflow.config.face import Analysis
from saeflow.config.prompting import about_prompts
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study


def saes(study: Study, own: Labels) -> list[str]:
    """The SAEs whose latents get labels."""
    able = [name for name in logit_lens.saes(study) if study.saes[name].kind == "sae"]
    return able if own.saes is None else [name for name in able if name in own.saes]


def tables(own: Labels) -> list[str]:
    """The tables of one SAE that are asked for."""
    beside = ["self_texts", "self_read_outs"] if "self" in own.sources else []
    if own.scores.kinds or "explainer" in own.sources:
        beside.append("passages")
    if own.scores.kinds:
        beside += ["answers", "scores"]
    if "adapted" in own.sources:
        beside.append("adapter")
    return ["latents", *own.sources, *beside, "labels", "summary"]


def _outputs(study: Study, own: Labels) -> list[str]:
    if not saes(study, own):
        return []
    of_sae = [f"labels/{{labelled_sae}}/{table}.parquet" for table in tables(own)]
    weights = ["labels/{labelled_sae}/adapter.safetensors"] if "adapted" in own.sources else []
    return [*of_sae, *weights, "labels/{labelled_sae}/labels.csv"]


def _complaints(study: Study, own: Labels) -> list[Complaint]:
    complaints: list[Complaint] = []
    able = saes(study, own.model_copy(update={"saes": None}))
    for place, name in enumerate(own.saes or []):
        if name not in able:
            reason = f"'{name}' is no SAE whose decoder writes to the residual stream"
            complaints.append((f"labels.saes.{place}", f"{reason}; name one of {able}"))
    if not study.examples:
        reason = "reads where latents fire, which is not asked for; set examples: {}"
        complaints.append(("labels", reason))
    if "tokens" in own.sources and not study.logit_lens:
        reason = "'tokens' are those of the logit lens, which is not asked for; set logit_lens: {}"
        complaints.append(("labels.sources", reason))
    if "dreams" in own.scores.kinds and not study.dreaming:
        reason = "'dreams' are those of dreaming, which is not asked for; set dreaming: {}"
        complaints.append(("labels.scores.kinds", reason))
    if own.latents.targets and not study.steering:
        reason = "goals are those of steering, which is not asked for; set steering, or false"
        complaints.append(("labels.latents.targets", reason))
    if {"self", "adapted"} & set(own.sources):
        templates = own.self_explanation.templates
        key = "labels.self_explanation.templates"
        complaints += about_prompts(study.model, key, templates)
    if "adapted" in own.sources and not own.adapter.words and not study.logit_lens:
        reason = (
            "is 0, and without logit_lens no latent has a word; raise it, or set logit_lens: {}"
        )
        complaints.append(("labels.adapter.words", reason))
    for name in saes(study, own):
        width = study.saes[name].declared_width
        beyond = [latent for latent in own.latents.listed if width and latent >= width]
        if beyond:
            reason = f"{beyond[0]} is not below {width}, the latents of '{name}'"
            complaints.append(("labels.latents.listed", reason))
        if "import" in own.sources and name not in own.imported:
            reason = f"lacks '{name}'; name its file, or leave it out of labels.saes"
            complaints.append(("labels.imported", reason))
    return complaints


ANALYSIS: Analysis[Study, Labels] = Analysis(
    key="labels",
    settings=Labels,
    builds_on=("examples", "logit_lens", "steering", "dreaming"),
    names=lambda study, own: {"labelled_sae": saes(study, own)},
    outputs=_outputs,
    complaints=_complaints,
    publishes=("labels/*/labels.parquet", "labels/*/summary.parquet"),
)
