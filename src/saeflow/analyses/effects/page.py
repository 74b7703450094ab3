"""The page of effects: how they were measured, and how well they are predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from saeflow import seals
from saeflow.analyses.effects.settings import Effects
from saeflow.errors import DamagedError
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, metric_facts, readable
from saeflow.tensors import metadata_of, open_hdf5

SCALE_RULES = {
    "loss_increase": "the scale at which the model's loss has risen by {value:g} nats per token",
    "loss": "the scale at which the model's loss is {value:g} nats per token",
    "fixed": "the scale {value:g}",
}

VECTORS = {
    "decoder": "rows of the decoder of SAE {sae}",
    "mixtures": "mixtures of two rows of the decoder of SAE {sae}",
    "random": "directions drawn at random",
    "file": "rows of {path}",
    "sae_ts": "a second round: the vector of every latent by SAE-targeted steering, from {path}",
}


def contribute(
    folder: StudyFolder, own: Effects, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page, and how many vectors were measured."""
    sae = folder.names("effects")["target_sae"][0]
    count = folder.read(f"effects/{sae}/effects.h5", _rows, 0)
    baseline: dict[str, Any] = folder.read(f"effects/{sae}/baseline.safetensors", _metadata, {})
    metrics = folder.json(f"effects/{sae}/metrics.json")
    facts = effect_facts(own, sae, count, baseline)
    context = {"effect_facts": facts, "approximator": metric_facts(metrics)}
    tile = Fact("vectors measured", f"{count:,}", "for the approximator")
    headline = []
    if isinstance(r2 := metrics.get("r2"), int | float):
        shuffled = metrics.get("r2_shuffled")
        beside = ""
        if shuffled is not None:
            beside = f"; with shuffled vectors it is {readable(float(shuffled))}"
        headline = [
            f"A linear map predicts {readable(float(r2))} of the variance of effects of vectors it "
            f"has not seen{beside}."
        ]
    return Contribution(
        pages={"effects": Page(template="effects.html", context=context, label="Effects")},
        headline=headline,
        tiles=[tile] if count else [],
    )


def effect_facts(effects: Effects, sae: str, count: int, baseline: dict[str, Any]) -> list[Fact]:
    """How the effects of steering vectors were measured."""
    settings = effects.measurement
    rule = SCALE_RULES[settings.scale.rule].format(value=settings.scale.value)
    rollouts = settings.samples * len(settings.prompts)
    facts = [
        Fact("Rule of the scale", rule, f"measured on {settings.scale.tokens:,} held-out tokens")
    ]
    if count:
        source = effects.vectors
        words = VECTORS[source.kind].format(sae=source.sae or sae, path=source.path)
        facts.append(Fact("Steering vectors", f"{count:,}", words))
    facts.append(Fact("Rollouts per vector", f"{rollouts:,}", f"{settings.new_tokens} tokens each"))
    if "rollouts" in baseline:
        facts.append(
            Fact(
                "Unsteered rollouts", readable(baseline["rollouts"]), "the baseline of every effect"
            )
        )
    if "loss" in baseline:
        facts.append(
            Fact("Loss without steering", readable(float(baseline["loss"])), "nats per token")
        )
    return facts


def _metadata(path: Path) -> dict[str, Any]:
    try:
        seals.check(path)
        with safe_open(path, framework="numpy") as file:
            return metadata_of(file, path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DamagedError(f"{path}: is no whole baseline ({error})", [path]) from None


def _rows(path: Path) -> int:
    try:
        seals.check(path)
        with open_hdf5(path) as file:
            return int(file["scale"].shape[0])
    except (OSError, KeyError) as error:
        raise DamagedError(f"{path}: cannot be read as effects ({error})", [path]) from None
