"""What the report's page shows, put together from a study's results; nothing here reads or writes files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from saeflow.config import Study
from saeflow.figures.io import StudyTables
from saeflow.figures.registry import FIGURES
from saeflow.figures.style import LOOKS, OTHER, words
from saeflow.figures.tables import methods
from saeflow.report import results, wording
from saeflow.report.side_effects import goal_effects, method_effects
from saeflow.report.texts import sample_texts
from saeflow.report.wording import Fact, metric_facts, readable

SECTIONS = {
    "results": (
        "methods_forest",
        "product_by_scale",
        "goal_detail",
        "pareto",
        "equal_coherence",
        "equal_divergence",
        "steered_vs_unsteered",
    ),
    "model": ("model_training",),
    "side_effects": ("side_effects",),
    "effects": ("effects_predicted_measured", "effect_scales"),
    "saes": ("sae_training", "sae_recovery", "crosscoder_sources"),
}
"""Where on the page each figure stands."""


@dataclass(frozen=True)
class StudyResults:
    """Everything the report is written from; what a study does not have is empty."""

    study: Study
    provenance: dict[str, Any]
    config: str
    """The study's config.yaml as text."""
    tables: StudyTables
    figures: dict[str, str]
    """By name: the text for those who do not see it."""
    samples: pl.DataFrame = field(default_factory=pl.DataFrame)
    """The first completions of every goal, method and scale."""
    scores: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Of those completions."""
    targets: dict[str, dict[int, float]] = field(default_factory=dict)
    """By goal: target latents with their weights."""
    model_metrics: dict[str, Any] = field(default_factory=dict)
    sae_metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By SAE."""
    approximator_metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By SAE."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """Metadata of the unsteered baseline: rollouts, loss."""


def render(found: StudyResults) -> str:
    """The page, as HTML."""
    loader = jinja2.PackageLoader("saeflow.report", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"words": words, "number": results.number}
    return environment.get_template("index.html").render(_context(found))


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _context(found: StudyResults) -> dict[str, Any]:
    study, tables = found.study, found.tables
    names = methods(tables.best) or list(study.steering.methods)
    texts = sample_texts(found.samples, found.scores, tables.summary)
    return {
        "study": study,
        "headline": results.headline(tables.best, tables.comparisons),
        "methods": [{"name": name, "colour": colour(name), "told": wording.METHODS.get(name, "")} for name in names],
        "rows": results.result_rows(tables.best, tables.comparisons),
        "in_sample": results.in_sample_rows(tables.best),
        "judge": wording.JUDGES[study.judge.kind],
        "run": run_facts(found),
        "figures": {section: _figures(found, placed) for section, placed in SECTIONS.items()},
        "texts": script_json(texts | {"unit": _unit(study), "colours": {name: colour(name) for name in names}}),
        "goals_with_texts": [of_goal["goal"] for of_goal in texts["goals"]],
        "method_effects": method_effects(tables.side_effects, found.targets),
        "goal_effects": goal_effects(tables.side_effects, found.targets),
        "saes": {name: metric_facts(metrics) for name, metrics in found.sae_metrics.items()},
        "recovery": tables.recovery.to_dicts(),
        "effects": effect_facts(found),
        "approximators": {name: metric_facts(metrics) for name, metrics in found.approximator_metrics.items()},
        "provenance": provenance_facts(found.provenance),
        "config": found.config,
    }


def colour(method: str) -> str:
    """The colour of a method in every figure, and so in the report."""
    return LOOKS.get(method, OTHER).colour


def run_facts(found: StudyResults) -> list[Fact]:
    """What was run, from the model to the judge."""
    study = found.study
    corpus = "stories written by a grammar, so that the truth about every text is known"
    if study.corpus.kind == "text":
        corpus = "a local file"
    completions = study.steering.samples * len(study.steering.prompts)
    scales = len(study.steering.scales)
    return [
        Fact("Language model", study.model.name, _model_note(study)),
        *metric_facts(found.model_metrics),
        Fact("Corpus", study.corpus.kind, corpus),
        Fact("Hook", study.hook, "where the SAE reads and steering vectors are added"),
        *(Fact("SAE", name, _sae_note(study, name)) for name in study.saes),
        Fact("Goals", str(len(study.goals.names)), ", ".join(map(words, study.goals.names))),
        Fact("Completions", f"{completions:,}", f"per goal, method and scale; {scales} scales, no steering among them"),
        Fact("Missing scores", _missing(found.tables.summary), "completions without both scores; they count nowhere"),
        Fact("Seed", str(study.seed), "every random draw follows from it"),
    ]


def effect_facts(found: StudyResults) -> list[Fact]:
    """How the effects of steering vectors were measured."""
    settings, vectors = found.study.effects, found.tables.effects
    rule = wording.SCALE_RULES[settings.scale.rule].format(value=settings.scale.value)
    rollouts = settings.samples * len(settings.prompts)
    facts = [Fact("Rule of the scale", rule, f"measured on {settings.scale.tokens:,} held-out tokens")]
    if len(vectors):
        source = settings.vectors
        told = wording.VECTORS[source.kind].format(sae=source.sae or found.study.steering_sae, path=source.path)
        facts.append(Fact("Steering vectors", f"{len(vectors):,}", told))
    facts.append(Fact("Rollouts per vector", f"{rollouts:,}", f"{settings.new_tokens} tokens each"))
    if "rollouts" in found.baseline:
        facts.append(Fact("Unsteered rollouts", readable(found.baseline["rollouts"]), "the baseline of every effect"))
    if "loss" in found.baseline:
        facts.append(Fact("Loss without steering", readable(float(found.baseline["loss"])), "nats per token"))
    return facts


def provenance_facts(provenance: dict[str, Any]) -> list[Fact]:
    """Versions, commit and machine."""
    facts = [Fact("Commit", provenance.get("commit") or "not from a checkout")]
    facts += [Fact("Machine", str(provenance.get("machine", "unknown")))]
    facts += [Fact("Python", str(provenance.get("python", "unknown")))]
    packages = provenance.get("packages", {})
    return facts + [Fact(name, version or "not installed") for name, version in packages.items()]


def _figures(found: StudyResults, names: tuple[str, ...]) -> list[dict[str, str]]:
    """The figures that exist, with their words."""
    return [
        {"name": name, "title": FIGURES[name].title, "caption": FIGURES[name].caption, "alt": found.figures[name]}
        for name in names
        if name in found.figures
    ]


def _model_note(study: Study) -> str:
    train = study.model.train
    if train is None:
        return f"from {study.model.published.where if study.model.published else study.model.path}"
    shape = f"{train.n_layers} layers, d_model {train.d_model}, {train.epochs} pass{'es' * (train.epochs > 1)}"
    return f"trained here on {study.corpus.tokens.model:,} tokens: {shape}"


def _sae_note(study: Study, name: str) -> str:
    train = study.saes[name].train
    if train is None:
        return f"from {study.saes[name].path}"
    sparsity = f", k {train.k}" if train.architecture in ("topk", "batchtopk") else ""
    return f"{train.architecture}, {train.d_sae:,} latents{sparsity}, trained here on {train.tokens:,} activations"


def _missing(summary: pl.DataFrame) -> str:
    if summary.is_empty():
        return "–"
    own = summary.filter(pl.col("split") == "all").select(pl.sum("missing", "n"))
    missing, n = own.row(0)
    return f"{missing:,} of {missing + n:,}"


def _unit(study: Study) -> list[float] | None:
    """The scales of the config where they are multiples of the mean activation norm, to be told beside the others."""
    return list(study.steering.scales) if study.steering.scale_unit == "norm" else None
