"""What a study of chess would run, and what it needs: what follows from its config, before there is
a game."""

from __future__ import annotations

from pathlib import Path

from saeflow.artifacts import read_object
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.player.io import CONFIG, embedded_maia2
from saeflow.chess.player.settings import ChessModel
from saeflow.chess.study import ChessStudy
from saeflow.counting import counted
from saeflow.planning.stages import after_core, heading, needs_of_analyses, needs_of_saes, remarks
from saeflow.planning.work import BYTES, Need, Plan, Scope, StagePlan

AT_MOST = (
    "positions (of saes, activations) are the most that a stage measures or trains on; what hangs "
    "on the games, or on what an engine says of them, is not counted, nor are operations and times "
    "told of chess"
)


def plan(study: ChessStudy, root: Path) -> Plan:
    """The work of a study, as far as its config tells it.

    Args:
        study: the study.
        root: the folder that ``results/`` lies in.
    """
    core = [_games(study), _model(study), _activations(study), _saes(study)]
    stages = [*core, *after_core(study, Scope(None, {}))]
    results = root / "results" / study.study
    sites = list(dict.fromkeys(sae.hook for sae in study.saes.values()))
    return Plan(
        heading(study, study.model.name, *sites),
        "positions",
        [stage.left(lambda path: (results / path).exists()) for stage in stages],
        needs(study, root),
        [AT_MOST, *remarks(study)],
    )


def player_shape(study: ChessStudy) -> ChessModel:
    """The shape of the model that is studied."""
    if study.model.embedded:
        return ChessModel.model_validate(read_object(embedded_maia2() / CONFIG)["shape"])
    return ChessModel() if study.model.official else study.model.shape


def row_width(shape: ChessModel, site: str) -> int:
    """Numbers in an activation at a site."""
    return shape.heads * shape.dim_head if site.endswith(".attn") else shape.dim_vit


def _games(study: ChessStudy) -> StagePlan:
    played = study.positions.self_play
    work = (
        f"{counted(played.games, 'game')} of the model with itself"
        if played
        else f"games of {', '.join(study.positions.paths)}"
    )
    if study.positions.test:
        work += f"; the split eval is {', '.join(study.positions.test)}"
    return StagePlan("games", 1, 0, 0, 0, work)


def _measured(study: ChessStudy) -> int:
    """Positions of the split ``eval`` that the model, and every SAE, is measured on."""
    return len(RATING_BINS) * study.accuracy.positions


def _model(study: ChessStudy) -> StagePlan:
    given, trained, work = study.model, 0, ""
    if train := given.train:
        trained = train.positions or 0
        most = f", {counted(trained, 'position')} at most" if trained else ""
        work = f"trained here on the split 'model', epochs {train.epochs}{most}; "
    return StagePlan(
        "model",
        2,
        trained + _measured(study),
        0,
        0,
        f"{work}accuracy by {len(RATING_BINS)} ratings",
    )


def _activations(study: ChessStudy) -> StagePlan:
    cached, shape = study.activations, player_shape(study)
    positions = cached.positions if study.hooks else 0
    shards = study.shards if study.hooks else 0
    rows = positions * (shape.tokens if cached.tokens == "all" else 1)
    width = sum(row_width(shape, site) for site in study.hooks)
    work = (
        f"{counted(shards, 'shard')} at {', '.join(study.hooks)}"
        if shards
        else "no SAE is trained here"
    )
    disk = rows * width * BYTES[cached.dtype]
    return StagePlan("activations", shards + len(study.hooks), positions, 0, disk, work)


def _saes(study: ChessStudy) -> StagePlan:
    shape = player_shape(study)
    trained = {name: sae.train for name, sae in study.saes.items() if sae.train}
    imported = len(study.saes) - len(trained)
    disk = sum(
        8 * train.d_sae * row_width(shape, study.hook_of(name)) for name, train in trained.items()
    )
    work = [
        f"{name}: {train.architecture}, {counted(train.steps, 'step')}"
        for name, train in trained.items()
    ]
    work += [f"{name}: imported" for name in study.saes if name not in trained]
    return StagePlan(
        "saes",
        len(study.trainings) + imported + len(study.saes),
        sum(train.tokens for train in trained.values()) + len(study.saes) * _measured(study),
        0,
        disk,
        ", ".join(work),
    )


def needs(study: ChessStudy, root: Path) -> list[Need]:
    """What the study reads from outside, and whether it is there."""
    positions = study.positions
    named = [("positions.path", path, "games/positions.parquet") for path in positions.paths]
    named += [("positions.test", path, "games/positions.parquet") for path in positions.test]
    if study.model.path:
        named.append(("model.path", study.model.path, f"models/{study.model.name}"))
    outside = [Need(key, path, (root / path).is_file(), made) for key, path, made in named]
    if study.model.official:
        outside.append(Need("model", f"Maia-2, {study.model.official}", None))
    outside += [
        Need(f"saes.{name}.path", sae.path, (root / sae.path).is_dir(), f"saes/{name}/cfg.json")
        for name, sae in study.saes.items()
        if sae.path
    ]
    return [*outside, *needs_of_saes(study), *needs_of_analyses(study)]
