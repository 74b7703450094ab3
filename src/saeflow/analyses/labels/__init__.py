"""Words for latents: labels from several sources, each with scores that say whether to believe
it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from saeflow.analyses import diffing, logit_lens
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


def crosscoders(study: Study, own: Labels) -> list[str]:
    """The crosscoders, and SAEs of differences, whose latents get labels."""
    able = diffing.crosscoders(study, study.diffing) if study.diffing else []
    named = able if own.saes is None else [name for name in able if name in own.saes]
    return [name for name in named if sources(own, name, able)]


def sources(own: Labels, sae: str, crosscoders: Collection[str]) -> list[str]:
    """Where the labels of an SAE come from: a direction of a crosscoder is none of the study's
    model alone, and is not put into it."""
    if sae not in crosscoders:
        return list(own.sources)
    able = {"tokens", "explainer"} | ({"import"} if sae in own.imported else set())
    return [source for source in own.sources if source in able]


def tables(own: Labels) -> list[str]:
    """The tables of one SAE that are asked for, whatever it reads."""
    beside = ["passages"] if own.scores.kinds or "explainer" in own.sources else []
    beside += ["answers", "scores"] if own.scores.kinds else []
    common = [source for source in own.sources if source in ("tokens", "explainer")]
    return ["latents", *common, *beside, "labels", "summary"]


def tables_of_one_model(own: Labels) -> list[str]:
    """Those beside them of an SAE that reads the study's model alone."""
    beside = ["self_texts", "self_read_outs"] if "self" in own.sources else []
    beside += ["adapter"] if "adapted" in own.sources else []
    alone = [source for source in own.sources if source not in ("tokens", "explainer")]
    return [*alone, *beside]


def _outputs(study: Study, own: Labels) -> list[str]:
    files = []
    if saes(study, own) or crosscoders(study, own):
        files += [f"labels/{{labelled_sae}}/{table}.parquet" for table in tables(own)]
        files.append("labels/{labelled_sae}/labels.csv")
    if saes(study, own):
        alone = tables_of_one_model(own)
        files += [f"labels/{{labelled_own_sae}}/{table}.parquet" for table in alone]
        weights = ["labels/{labelled_own_sae}/adapter.safetensors"]
        files += weights if "adapted" in own.sources else []
    return files


def _names(study: Study, own: Labels) -> dict[str, list[str]]:
    own_saes, of_several = saes(study, own), crosscoders(study, own)
    return {
        "labelled_sae": [*own_saes, *of_several],
        "labelled_own_sae": own_saes,
        "labelled_crosscoder": of_several,
    }


def _complaints(study: Study, own: Labels) -> list[Complaint]:
    complaints: list[Complaint] = []
    every = own.model_copy(update={"saes": None})
    able = [*saes(study, every), *crosscoders(study, every)]
    for place, name in enumerate(own.saes or []):
        if name not in able:
            reason = f"'{name}' is no SAE whose decoder writes to the residual stream"
            if name in study.saes_of("crosscoder", "difference"):
                reason = f"'{name}' reads several models and hooks, and gets labels of the sources "
                reason += "tokens, import (with its file) and explainer where diffing looks at it"
            complaints.append((f"labels.saes.{place}", f"{reason}; name one of {able}"))
    alone = saes(study, own) or not crosscoders(study, own)
    if alone and not study.examples:
        reason = "reads where latents fire, which is not asked for; set examples: {}"
        complaints.append(("labels", reason))
    if alone and "tokens" in own.sources and not study.logit_lens:
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
    builds_on=("examples", "logit_lens", "steering", "dreaming", "diffing"),
    names=_names,
    outputs=_outputs,
    complaints=_complaints,
    publishes=("labels/*/labels.parquet", "labels/*/summary.parquet"),
)
