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
LATENT_TABLES = (
    *("latents", "latent_groups", "latent_circles", "latent_places", "splits"),
    *("periods", "dated_latents"),
)


def hooks(study: Study, own: Geometry) -> list[str]:
    """Where circles and lines are fitted and moved along."""
    return own.points.hooks or [study.hook]


def saes(study: Study, own: Geometry) -> list[str]:
    """The SAEs whose latents are looked at."""
    if own.latents is None:
        return []
    able = study.own_saes_of("sae")
    return able if own.latents.saes is None else [name for name in able if name in own.latents.saes]


def read_hooks(study: Study, own: Geometry) -> list[str]:
    """Where activations are read: there, and where these SAEs read."""
    of_saes = (study.hook_of(name) for name in saes(study, own))
    return list(dict.fromkeys([*hooks(study, own), *of_saes]))


def moves(own: Geometry) -> bool:
    """Whether the model is moved anywhere."""
    asked = any(each.prompts for each in own.points.groups.values())
    return asked or any(each.cause for each in own.points.lines.values())


def _complaints(study: Study, own: Geometry) -> list[Complaint]:
    complaints: list[Complaint] = []
    if not (own.points.groups or own.points.lines or own.latents):
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
    return complaints + (_about_latents(study, own) if own.latents else [])


def _about_latents(study: Study, own: Geometry) -> list[Complaint]:
    asked, able = own.latents, study.own_saes_of("sae")
    assert asked is not None
    complaints: list[Complaint] = []
    if not study.examples:
        reason = "reads where latents fire, which is not asked for; set examples: {}"
        complaints.append(("geometry.latents", reason))
    if not asked.groups and not own.points.lines:
        reason = "names no groups, and there is no line to read latents off; give either"
        complaints.append(("geometry.latents.groups", reason))
    for line, each_line in own.points.lines.items():
        for other in each_line.read_off.keys() & asked.groups.keys():
            reason = "is the name of a group of latents, too; rename one"
            complaints.append((f"geometry.points.lines.{line}.read_off.{other}", reason))
    others = f"is no SAE of the study that reads its model; name one of {able}"
    for name in asked.saes or []:
        if name not in able:
            complaints.append(("geometry.latents.saes", f"'{name}' {others}"))
    for group, each in asked.groups.items():
        key = f"geometry.latents.groups.{group}"
        given = (each.kind, each.words, each.pattern, each.token_set)
        if given == (None,) * 4 and group not in own.points.groups:
            reason = (
                "has no set; give kind, words, pattern or token_set, or points.groups of its name"
            )
            complaints.append((key, reason))
        if each.token_set and not asked.files:
            complaints.append(
                (f"{key}.token_set", "is of no file; name one in geometry.latents.files")
            )
        for sae, latents in each.latents.items():
            width = study.saes[sae].declared_width if sae in able else None
            if sae not in able:
                complaints.append((f"{key}.latents", f"'{sae}' {others}"))
            elif width and max(latents, default=0) >= width:
                reason = f"{max(latents)} is none of {width} latents, 0 to {width - 1}; correct it"
                complaints.append((f"{key}.latents.{sae}", reason))
    return complaints


ANALYSIS: Analysis[Study, Geometry] = Analysis(
    key="geometry",
    settings=Geometry,
    builds_on=("examples", "logit_lens"),
    outputs=lambda study, own: [
        *(f"geometry/{table}.parquet" for table in FITTED),
        *(f"geometry/{table}.parquet" for table in MOVED if moves(own)),
        *(f"geometry/{table}.parquet" for table in LATENT_TABLES if own.latents),
    ],
    complaints=_complaints,
    publishes=("geometry/*.parquet",),
)
