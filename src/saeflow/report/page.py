"""What the first page of a study shows beside what its analyses found; nothing here reads or writes
files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from saeflow.config import AnyStudy
from saeflow.config.embedded import is_embedded
from saeflow.config.sections import Core
from saeflow.counting import counted
from saeflow.figures.style import words
from saeflow.report.contribution import Contribution
from saeflow.report.wording import Fact, duration, metric_facts, readable

NARROW = 560
"""Points; a figure of less is shown in less than the width of a page."""


class FigureText(NamedTuple):
    """The words of a figure."""

    name: str
    section: str
    """Where it stands."""
    title: str
    caption: str
    alt: str
    """For those who do not see it."""
    width: float
    height: float
    """In points: pages leave room for a picture before it is there."""

    @property
    def narrow(self) -> bool:
        """Whether it would have letters of giants in the full width of a page."""
        return self.width < NARROW


class Jobs(NamedTuple):
    """The jobs of a study as they ran last."""

    stages: pl.DataFrame
    """What every rule took: rule, jobs, seconds, cpu_seconds, peak_mb."""
    began: datetime
    ended: datetime


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

    def placed(self, section: str) -> list[FigureText]:
        """The figures of a section that were drawn."""
        return [figure for figure in self.figures.values() if figure.section == section]


@dataclass(frozen=True, kw_only=True)
class StudyFindings(Findings):
    """What is known of a study of a language model beside its analyses."""

    study: Core
    model_metrics: dict[str, Any] = field(default_factory=dict)


class Chapter(NamedTuple):
    """What one analysis found, on the first page."""

    title: str
    page: str | None
    """Its page, for a link."""
    sentences: Sequence[str]


def study_context(
    results: StudyFindings, contributions: Mapping[str, Contribution], jobs: Jobs | None = None
) -> dict[str, Any]:
    """What the study's page is filled from.

    Args:
        results: of the core.
        contributions: of the analyses, by their keys.
        jobs: that were run, where that is known.
    """
    added = contributions.values()
    return {
        "chapters": [_chapter(key, own) for key, own in contributions.items() if own.headline],
        "tiles": [*tiles(results), *(tile for own in added for tile in own.tiles)],
        "run": [
            *run_facts(results),
            *(fact for own in added for fact in own.run),
            Fact("Seed", str(results.study.seed), "every random draw follows from it"),
            *job_facts(jobs),
        ],
        "stages": stage_rows(jobs),
        "provenance": provenance_facts(results.provenance),
        "config": results.config,
    }


def job_facts(jobs: Jobs | None) -> list[Fact]:
    """When the jobs ran, and what they took."""
    if jobs is None:
        return []
    began, ended = (f"{at.day} {at:%B %Y, %H:%M}" for at in (jobs.began, jobs.ended))
    if jobs.began.date() == jobs.ended.date():
        ended = f"{jobs.ended:%H:%M}"
    seconds, cpu_seconds = (float(jobs.stages[name].sum()) for name in ("seconds", "cpu_seconds"))
    count = int(jobs.stages["jobs"].sum())
    return [
        Fact("Run", f"{began} to {ended}", "UTC, by the jobs as they ran last"),
        Fact(
            "Time of jobs",
            duration(seconds),
            f"sum over {counted(count, 'job')}, some of which ran at once",
        ),
        Fact("Processor time", duration(cpu_seconds), "the table of costs has each rule"),
    ]


def stage_rows(jobs: Jobs | None) -> list[dict[str, Any]]:
    """What the rules took; not that of the report, which is not over."""
    return [] if jobs is None else jobs.stages.filter(pl.col("rule") != "write_report").to_dicts()


def _chapter(key: str, own: Contribution) -> Chapter:
    page = next((name for name, page in own.pages.items() if page.label), None)
    return Chapter(words(key).capitalize(), page, own.headline)


def tiles(results: StudyFindings) -> list[Fact]:
    """The study at a glance."""
    study = results.study
    facts = [
        Fact("model", study.model.name, f"corpus {study.corpus.kind}"),
        Fact("hook", study.hook, "where SAEs read by default"),
    ]
    for name in list(study.saes)[:3]:
        metrics = results.sae_metrics.get(name, {})
        values = {"L0": metrics.get("l0"), "explained variance": metrics.get("explained_variance")}
        measured = (f"{k} {readable(float(v))}" for k, v in values.items() if v is not None)
        facts.append(Fact("SAE", name, ", ".join(measured)))
    if (more := len(study.saes) - 3) > 0:
        facts.append(Fact("more SAEs", str(more), "on the page of SAEs"))
    return facts


def run_facts(results: StudyFindings) -> list[Fact]:
    """What was run, from the text to the SAEs."""
    study = results.study
    corpus = "stories written by a grammar, so that the truth about every text is known"
    if study.corpus.kind == "text":
        corpus = "a data set of a hub" if study.corpus.dataset else "local files"
    return [
        Fact("Language model", study.model.name, _model_note(study)),
        *metric_facts(results.model_metrics),
        Fact("Corpus", study.corpus.kind, corpus),
        Fact("Hook", study.hook, "where SAEs read by default, and where vectors are added"),
        *(Fact("SAE", name, _sae_note(study, name)) for name in study.saes),
    ]


def provenance_facts(provenance: dict[str, Any]) -> list[Fact]:
    """Versions, commit and machine."""
    packages = provenance.get("packages", {})
    return [
        Fact("Commit", provenance.get("commit") or "not from a checkout"),
        Fact("Machine", str(provenance.get("machine", "unknown"))),
        *(
            [Fact("Processor", str(provenance["processor"]), f"{provenance.get('cores')} cores")]
            if provenance.get("processor")
            else []
        ),
        Fact("Python", str(provenance.get("python", "unknown"))),
        *(Fact(name, version or "not installed") for name, version in packages.items()),
    ]


def _model_note(study: Core) -> str:
    train = study.model.train
    if study.model.tune:
        return f"a copy of {study.origin_of(study.model.name).name}, tuned here"
    if train is None:
        fetchable = study.model.fetchable
        return f"from {fetchable.where if fetchable else study.model.path}"
    shape = (
        f"{counted(train.n_layers, 'layer')}, d_model {train.d_model}, "
        f"{counted(train.epochs, 'pass', 'passes')}"
    )
    where = "comes with saeflow, trained" if is_embedded(study, study.model) else "trained here"
    return f"{where} on {counted(study.corpus.tokens.model, 'token')}: {shape}"


def _sae_note(study: Core, name: str) -> str:
    train = study.saes[name].train
    if train is None:
        published = study.saes[name].published
        return f"from {published.where if published else study.saes[name].path}"
    sparsity = f", k {train.k}" if train.traits.takes_k else ""
    return (
        f"{train.traits.label}, {counted(train.d_sae, 'latent')}{sparsity}, trained here on "
        f"{train.tokens:,} activations"
    )
