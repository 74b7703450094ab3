"""The pages of steering: which method does best, and a page per goal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses.steering import results, scale_words, words
from saeflow.analyses.steering.beside_scores import BesideScores
from saeflow.analyses.steering.goal_pages import GoalResults, goal_context, goal_lines, goal_value
from saeflow.analyses.steering.method_effects import MethodEffect, goal_means, method_effects
from saeflow.analyses.steering.methods import BY_NAME, IN_WORDS, METHODS
from saeflow.analyses.steering.report_results import SteeringFolder, SteeringResults
from saeflow.analyses.steering.search.rows import search_rows, search_sentences
from saeflow.analyses.steering.settings import Steering
from saeflow.analyses.steering.tables import goals
from saeflow.analyses.steering.target_rows import sentences
from saeflow.counting import counted
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.payload import write_script
from saeflow.report.wording import Fact


def contribute(
    folder: StudyFolder, own: Steering, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """Write every goal's data; give the page of results and the pages of goals."""
    steered = SteeringFolder(folder, own)
    steering = steered.results()
    with_pages = [sae for contribution in added.values() for sae in contribution.latent_saes]
    linked = steering.sae if steering.sae in with_pages else None
    pages, means = {}, []
    for name in own.goals.names:
        samples, scores = steered.samples(name)
        goal = GoalResults(name, steered.targets(name), steered.side_effects(name), samples, scores)
        write_script(output, f"goal-{name}", goal_value(steering, goal, linked))
        pages[f"goal-{name}"] = Page(template="goal.html", context=goal_context(steering, goal))
        means.append(goal_means(goal.side_effects, goal.targets))
    context = steering_context(steering, method_effects(means))
    return Contribution(
        pages={
            "steering": Page(template="steering.html", context=context, label="Steering"),
            "goals": Page(
                template="goals.html",
                context={
                    "lines": goal_lines(steering),
                    "intervals": words.intervals(own),
                    "target_sae": steering.sae,
                },
                label="Goals",
            ),
            **pages,
        },
        assets=("goal.js",),
        headline=context["headline"],
        tiles=tiles(steering),
        run=run_facts(steering),
        titles={name: steering.title(name) for name in own.goals.names},
        looks={method.name: method.look for method in METHODS},
    )


def latent_marks(folder: StudyFolder, own: Steering, sae: str) -> list[list[object]]:
    """Latents of an SAE that goals target: latent, goal, weight."""
    steered = SteeringFolder(folder, own)
    if sae != steered.sae:
        return []
    return [
        [latent, goal, weight]
        for goal in own.goals.names
        for latent, weight in steered.targets(goal).items()
    ]


def steering_context(steering: SteeringResults, effects: list[MethodEffect]) -> dict[str, Any]:
    """What the page of results is filled from.

    Args:
        steering: the results.
        effects: what each method does to latents, averaged over goals.
    """
    settings = steering.settings
    multiples = scale_words.multiples(settings.completions)
    intervals = words.intervals(settings)
    headline = results.headline(steering.best, steering.comparisons)
    return {
        "headline": [
            *headline,
            *([f"Brackets hold {intervals}."] if headline else []),
            *sentences(steering.targets),
            *steering.planted.sentences,
            *(
                search_sentences(steering.searched, settings.search.kl_budget, steering.layer)
                if settings.search
                else []
            ),
        ],
        "goal_count": len(settings.goals.names),
        "scales": scale_words.note(multiples is not None),
        "targets": steering.targets,
        "target_sae": steering.sae,
        "planted": steering.planted,
        "methods": [
            (name, BY_NAME[name].words if name in BY_NAME else "") for name in steering.methods
        ],
        "rows": results.result_rows(steering.best, steering.comparisons, multiples),
        "goal_names": goals(steering.best),
        "in_words": [name for name in steering.methods if name in IN_WORDS],
        "beside": BesideScores.of(steering.best, steering.summary),
        "in_sample": results.in_sample_rows(steering.best, multiples),
        "judge": settings.judge.traits.words,
        "intervals": intervals,
        "method_effects": effects,
        "cost": steering.cost,
        "search": settings.search,
        "searched": search_rows(steering.searched),
        "own_layer": steering.layer,
        "ratings": steering.ratings.to_dicts(),
    }


def tiles(steering: SteeringResults) -> list[Fact]:
    """The study's steering at a glance."""
    settings, written = steering.settings, steering.settings.completions
    in_words = len(settings.prompting.methods) if settings.prompting else 0
    points = (len(steering.methods) - in_words) * len(written.scales) + 2 * in_words
    texts = len(settings.goals.names) * points * len(written.prompts) * written.samples
    return [
        Fact(
            "goals × methods",
            f"{len(settings.goals.names)} × {len(steering.methods)}",
            counted(len(written.scales), "scale"),
        ),
        Fact("completions", f"{texts:,}", f"judged: {settings.judge.model or settings.judge.kind}"),
    ]


def run_facts(steering: SteeringResults) -> list[Fact]:
    """What was steered, and what is missing."""
    settings, written = steering.settings, steering.settings.completions
    names = settings.goals.names
    count = counted(len(written.scales), "scale")
    scales = f"per goal, method and scale; {count}, no steering among them"
    missing = "completions without both scores; they count nowhere"
    return [
        Fact("Goals", str(len(names)), ", ".join(map(steering.title, names))),
        Fact("Completions", f"{written.samples * len(written.prompts):,}", scales),
        Fact("Missing scores", _missing(steering.summary), missing),
        *_barred(steering),
    ]


def _barred(steering: SteeringResults) -> list[Fact]:
    """How many scales could not be chosen, where there are any."""
    if steering.summary.is_empty() or steering.summary["eligible"].all():
        return []
    of_all = steering.summary.filter(pl.col("split") == "all")
    note = (
        f"less than {steering.settings.summary.least_scored:.0%} of their completions have both "
        "scores, in one part or both"
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
