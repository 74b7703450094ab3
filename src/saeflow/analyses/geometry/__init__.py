"""Circles of words and lines of numbers in the residual stream, and whether the model goes by
them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.geometry.settings import Geometry
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

FITTED = ("circles", "places", "lines", "held_out", "angles", "read_off")
MOVED = ("turns", "shifts", "causes")


def hooks(study: Study, own: Geometry) -> list[str]:
    """Where activations are read and moved."""
    return own.points.hooks or [study.hook]


def moves(own: Geometry) -> bool:
    """Whether the model is moved anywhere."""
    asked = any(each.prompts for each in own.points.groups.values())
    return asked or any(each.cause for each in own.points.lines.values())


def _complaints(study: Study, own: Geometry) -> list[Complaint]:
    complaints: list[Complaint] = []
    if not (own.points.groups or own.points.lines):
        complaints.append(("geometry.points", "names neither groups nor lines; give some"))
    if moves(own) and (own.points.hooks or not study.steering):  # which says so of the study's hook
        key = "geometry.points.hooks" if own.points.hooks else "hook"
        complaints += [
            (key, f"'{hook}' cannot be moved at; name a hook_resid_post, or leave out prompts")
            for hook in hooks(study, own)
            if not hook.endswith(".hook_resid_post")
        ]
    for name in own.points.groups.keys() & own.points.lines.keys():
        complaints.append(
            (f"geometry.points.lines.{name}", "is the name of a group, too; rename one")
        )
    return complaints


ANALYSIS: Analysis[Study, Geometry] = Analysis(
    key="geometry",
    settings=Geometry,
    outputs=lambda study, own: [
        *(f"geometry/{table}.parquet" for table in FITTED),
        *(f"geometry/{table}.parquet" for table in MOVED if moves(own)),
    ],
    complaints=_complaints,
    publishes=("geometry/*.parquet",),
)
