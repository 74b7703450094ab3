"""What the study's page shows, put together from its results; nothing here reads or writes
files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses import Study
from saeflow.analyses.steering.methods import BY_NAME
from saeflow.analyses.steering.tables import goals, methods
from saeflow.config import AnyStudy, Goal
from saeflow.endpoint.ledger import Usage
from saeflow.figures.style import words
from saeflow.report import results, wording
from saeflow.report.asked import measured, steered
from saeflow.report.side_effects import MethodEffect
from saeflow.report.targets import Planted, TargetRow, sentences
from saeflow.report.wording import Fact, metric_facts, readable


class FigureText(NamedTuple):
    """The words of a figure."""

    name: str
    section: str
    """Where it stands."""
    title: str
    caption: str
    alt: str
    """For those who do not see it."""
    has_dark: bool
    """Whether there is also a picture for dark ground."""


class Cost(NamedTuple):
    """What judging by a model cost."""

    calls: int
    usd: float
    usage: list[Usage]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of a study of any kind; what it does not have is empty."""

    study: AnyStudy
    provenance: dict[str, Any]
    config: str
    """The study's config.yaml as text."""
    figures: dict[str, FigureText] = field(default_factory=dict)
    sae_configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By SAE: its ``cfg.json``."""
    sae_metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    sae_training: dict[str, pl.DataFrame] = field(default_factory=dict)
    recovery: pl.DataFrame = field(default_factory=pl.DataFrame)
    """With the column sae."""

    def title(self, name: str) -> str:
        """A goal or a concept as people read it."""
        return words(name)

    def placed(self, section: str) -> list[FigureText]:
        """The figures of a section that were drawn."""
        return [figure for figure in self.figures.values() if figure.section == section]


@dataclass(frozen=True, kw_only=True)
class StudyResults(Findings):
    """What is known of a study of steering."""

    study: Study
    summary: pl.DataFrame
    best: pl.DataFrame
    comparisons: pl.DataFrame = field(default_factory=pl.DataFrame)
    ratings: pl.DataFrame = field(default_factory=pl.DataFrame)
    targets: list[TargetRow] = field(default_factory=list)
    """The latents that goals target."""
    planted: Planted = field(default_factory=Planted)
    """Methods with the chosen targets and with those that are known to be the best; empty where
    none are known."""
    goals: dict[str, Goal] = field(default_factory=dict)
    """What the goals' files say."""
    model_metrics: dict[str, Any] = field(default_factory=dict)
    approximator_metrics: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    """Metadata of the unsteered baseline: rollouts, loss."""
    vector_count: int = 0
    """Vectors whose effects were measured."""
    cost: Cost | None = None

    def title(self, name: str) -> str:
        """The name of a goal as people read it."""
        return self.goals[name].title if name in self.goals else words(name)

    @property
    def methods(self) -> list[str]:
        """Methods in the order of tables and figures."""
        return methods(self.best) or list(steered(self.study).vectors.methods)


def study_context(
    found: StudyResults, effects: list[MethodEffect], latents_sae: str | None = None
) -> dict[str, Any]:
    """What the study's page is filled from.

    Args:
        effects: what each method does to latents, averaged over goals.
        latents_sae: the SAE whose latents have pages, for links; None where they have none.
    """
    rows = results.result_rows(found.best, found.comparisons)
    return {
        "headline": [
            *results.headline(found.best, found.comparisons),
            *sentences(found.targets),
            *found.planted.told,
        ],
        "targets": found.targets,
        "latents_sae": latents_sae,
        "planted": found.planted,
        "methods": [
            (name, BY_NAME[name].words if name in BY_NAME else "") for name in found.methods
        ],
        "rows": rows,
        "goal_names": goals(found.best),
        "in_sample": results.in_sample_rows(found.best),
        "judge": wording.JUDGES[steered(found.study).judge.kind],
        "prompts": wording.intervals_for(
            len(set(map(str, steered(found.study).completions.prompts)))
        ),
        "tiles": tiles(found),
        "run": run_facts(found),
        "effect_facts": effect_facts(found),
        "method_effects": effects,
        "approximator": metric_facts(found.approximator_metrics),
        "cost": found.cost,
        "ratings": found.ratings.to_dicts(),
        "provenance": provenance_facts(found.provenance),
        "config": found.config,
    }


def tiles(found: StudyResults) -> list[Fact]:
    """The study at a glance."""
    study = found.study
    sae, metrics = study.target_sae, found.sae_metrics.get(study.target_sae, {})
    known = {"L0": metrics.get("l0"), "explained variance": metrics.get("explained_variance")}
    measured = ", ".join(
        f"{name} {readable(float(value))}" for name, value in known.items() if value is not None
    )
    n = (
        steered(study).completions.samples
        * len(steered(study).completions.prompts)
        * len(steered(study).completions.scales)
    )
    texts = n * len(steered(study).goals.names) * len(found.methods)
    return [
        Fact("model", study.model.name, f"corpus {study.corpus.kind}"),
        Fact("hook", study.hook, "read and steered"),
        Fact("SAE", sae, measured),
        Fact(
            "goals × methods",
            f"{len(steered(study).goals.names)} × {len(found.methods)}",
            f"{len(steered(study).completions.scales)} scales",
        ),
        Fact(
            "completions",
            f"{texts:,}",
            f"judged: {steered(study).judge.model or steered(study).judge.kind}",
        ),
        *(
            [Fact("vectors measured", f"{found.vector_count:,}", "for the approximator")]
            if found.vector_count
            else []
        ),
    ]


def run_facts(found: StudyResults) -> list[Fact]:
    """What was run, from the model to the judge."""
    study = found.study
    corpus = "stories written by a grammar, so that the truth about every text is known"
    if study.corpus.kind == "text":
        corpus = "a local file"
    completions = steered(study).completions.samples * len(steered(study).completions.prompts)
    scales = len(steered(study).completions.scales)
    return [
        Fact("Language model", study.model.name, _model_note(study)),
        *metric_facts(found.model_metrics),
        Fact("Corpus", study.corpus.kind, corpus),
        Fact("Hook", study.hook, "where the SAE reads and steering vectors are added"),
        *(Fact("SAE", name, _sae_note(study, name)) for name in study.saes),
        Fact(
            "Goals",
            str(len(steered(study).goals.names)),
            ", ".join(map(found.title, steered(study).goals.names)),
        ),
        Fact(
            "Completions",
            f"{completions:,}",
            f"per goal, method and scale; {scales} scales, no steering among them",
        ),
        Fact(
            "Missing scores",
            _missing(found.summary),
            "completions without both scores; they count nowhere",
        ),
        *_barred(found),
        Fact("Seed", str(study.seed), "every random draw follows from it"),
    ]


def effect_facts(found: StudyResults) -> list[Fact]:
    """How the effects of steering vectors were measured."""
    effects = measured(found.study)
    settings = effects.measurement
    rule = wording.SCALE_RULES[settings.scale.rule].format(value=settings.scale.value)
    rollouts = settings.samples * len(settings.prompts)
    facts = [
        Fact("Rule of the scale", rule, f"measured on {settings.scale.tokens:,} held-out tokens")
    ]
    if found.vector_count:
        source = effects.vectors
        told = wording.VECTORS[source.kind].format(
            sae=source.sae or found.study.target_sae, path=source.path
        )
        facts.append(Fact("Steering vectors", f"{found.vector_count:,}", told))
    facts.append(Fact("Rollouts per vector", f"{rollouts:,}", f"{settings.new_tokens} tokens each"))
    if "rollouts" in found.baseline:
        facts.append(
            Fact(
                "Unsteered rollouts",
                readable(found.baseline["rollouts"]),
                "the baseline of every effect",
            )
        )
    if "loss" in found.baseline:
        facts.append(
            Fact("Loss without steering", readable(float(found.baseline["loss"])), "nats per token")
        )
    return facts


def provenance_facts(provenance: dict[str, Any]) -> list[Fact]:
    """Versions, commit and machine."""
    facts = [Fact("Commit", provenance.get("commit") or "not from a checkout")]
    facts += [Fact("Machine", str(provenance.get("machine", "unknown")))]
    facts += [Fact("Python", str(provenance.get("python", "unknown")))]
    packages = provenance.get("packages", {})
    return facts + [Fact(name, version or "not installed") for name, version in packages.items()]


def _model_note(study: Study) -> str:
    train = study.model.train
    if train is None:
        return f"from {study.model.published.where if study.model.published else study.model.path}"
    shape = (
        f"{train.n_layers} layers, d_model {train.d_model}, {train.epochs} "
        f"pass{'es' * (train.epochs > 1)}"
    )
    return f"trained here on {study.corpus.tokens.model:,} tokens: {shape}"


def _sae_note(study: Study, name: str) -> str:
    train = study.saes[name].train
    if train is None:
        published = study.saes[name].published
        return f"from {published.where if published else study.saes[name].path}"
    sparsity = f", k {train.k}" if train.traits.takes_k else ""
    return (
        f"{train.traits.label}, {train.d_sae:,} latents{sparsity}, trained here on "
        f"{train.tokens:,} activations"
    )


def _barred(found: StudyResults) -> list[Fact]:
    """How many scales could not be chosen, where there are any."""
    if found.summary.is_empty() or found.summary["eligible"].all():
        return []
    of_all = found.summary.filter(pl.col("split") == "all")
    note = (
        f"less than {steered(found.study).summary.least_scored:.0%} of their completions have both "
        "scores, "
        "in one part or both"
    )
    return [
        Fact(
            "Scales that could not be chosen",
            f"{(~of_all['eligible']).sum():,} of {len(of_all):,}",
            note,
        )
    ]


def _missing(summary: pl.DataFrame) -> str:
    if summary.is_empty():
        return "–"
    own = summary.filter(pl.col("split") == "all").select(pl.sum("missing", "n"))
    missing, n = own.row(0)
    return f"{missing:,} of {missing + n:,}"
