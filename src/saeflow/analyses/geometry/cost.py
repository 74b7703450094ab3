"""What geometry takes, and what it reads from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.geometry import (
    FITTED,
    LATENT_TABLES,
    MOVED,
    hooks,
    moves,
    read_hooks,
    saes,
)
from saeflow.analyses.geometry.settings import Geometry
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study

TEXT_TOKENS = 16
"""Of a text in a template, about; what is not known before texts are tokenised."""


def work(study: Study, own: Geometry, scope: Scope) -> list[StagePlan]:
    """Forward passes over texts, and over every text that is moved."""
    words = [(len(each.members), each) for each in own.points.groups.values()]
    read = sum(n * len(each.texts) for n, each in words)
    read += sum(line.most for line in own.points.lines.values())
    moved = sum(n * n * len(each.prompts) for n, each in words)
    causes = [line.cause for line in own.points.lines.values() if line.cause]
    moved += sum(each.texts * len(each.steps) * len(each.prompts) for each in causes)
    moved *= (1 + own.nulls.controls) * len(hooks(study, own))
    tokens = TEXT_TOKENS * (read + moved)
    names = saes(study, own)
    tables = (*FITTED, *(MOVED if moves(own) else ()), *(LATENT_TABLES if own.latents else ()))
    places = read_hooks(study, own)
    return [
        StagePlan(
            "geometry",
            2 + moves(own) + bool(own.latents),
            tokens,
            tokens * scope.flop(),
            4 * read * scope.width * len(places),
            f"{counted(len(own.points.groups), 'group')} of words and "
            f"{counted(len(own.points.lines), 'line')} at {counted(len(places), 'hook')}; "
            f"{counted(moved, 'text')} moved; latents of {counted(len(names), 'SAE')}",
            [f"geometry/{table}.parquet" for table in tables],
        )
    ]


def needs(study: Study, own: Geometry) -> list[Need]:
    """Files of texts, and of token sets."""
    named = {f"{name}.texts.path": line.texts.path for name, line in own.points.lines.items()}
    for name, line in own.points.lines.items():
        for other, source in line.read_off.items():
            named[f"{name}.read_off.{other}.path"] = source.path
    of_lines = [
        Need(
            f"geometry.points.lines.{at}",
            path,
            shipped_or_own(path).is_file(),
            "geometry/lines.parquet",
        )
        for at, path in named.items()
        if path
    ]
    files = own.latents.files if own.latents else ()
    return of_lines + [
        Need("geometry.latents.files", path, shipped_or_own(path).is_file()) for path in files
    ]
