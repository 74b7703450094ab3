"""What decompositions take, and what they read from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.analyses.decomposition import TABLES, saes
from saeflow.analyses.decomposition.settings import Decomposition
from saeflow.analyses.directions import models
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study


def work(study: Study, own: Decomposition, scope: Scope) -> list[StagePlan]:
    """A product with the decoder per step, pursuit and direction; the texts of contrasts count for
    little beside it."""
    asked, curves, names = own.directions, own.curves, saes(study)
    goals = len(study.steering.goals.names) if study.steering else 0
    contrasts = len(asked.contrasts)
    there = study.directions
    measured = len(asked.measured) * len(models(study, there)) if there else 0
    contrasts += measured
    directions = contrasts + len(asked.files) + goals * len(asked.steering)
    against = curves.random + contrasts * (curves.shuffled + curves.bootstrap)
    latents = sum(study.saes[name].declared_width or 0 for name in names)
    steps = (directions + against) * curves.latents * len(curves.pursuits)
    texts = sum(len(each.texts.examples or ()) for each in asked.contrasts.values())
    files = [f"decomposition/{name}/{table}.parquet" for name in names for table in TABLES]
    return [
        StagePlan(
            "decomposition",
            2 + len(names) + len(names) * _edited(study, own),
            texts,
            2 * scope.width * latents * steps,
            60 * directions * curves.latents * len(curves.pursuits) * len(names),
            f"{counted(directions, 'direction')} in {counted(len(names), 'SAE')}, beside "
            f"{against:,} that mean nothing",
            files,
        )
    ]


def _edited(study: Study, own: Decomposition) -> int:
    """Directions of models that sums stand in for, in every SAE."""
    there = study.directions
    return len(own.directions.measured) * len(models(study, there)) if own.edits and there else 0


def needs(study: Study, own: Decomposition) -> list[Need]:
    """Files of texts, of vectors, and corpora of other studies."""
    asked, key = own.directions, "decomposition.directions"
    named = {
        f"{key}.contrasts.{name}.texts.path": each.texts.path
        for name, each in asked.contrasts.items()
    }
    named |= {f"{key}.files.{name}": path for name, path in asked.files.items()}
    named |= {f"{key}.corpora.{name}": path for name, path in asked.corpora.items()}
    made = "decomposition/texts.parquet"
    return [Need(at, path, Path(path).is_file(), made) for at, path in named.items() if path]
