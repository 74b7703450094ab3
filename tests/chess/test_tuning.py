"""Further training on blunders: what is learned from and what is not, that it helps, and that it
can be interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from chess_positions import positions_table, random_play
from typer.testing import CliRunner

from saeflow.chess.analyses.blunders.blunders import BLUNDERS, blunder_set
from saeflow.chess.analyses.engine.engine import ENGINE
from saeflow.chess.analyses.fine_tune.lessons import (
    FINE_TUNING,
    Lessons,
    lessons,
    strongest_moves,
    without,
)
from saeflow.chess.analyses.fine_tune.settings import FineTuning
from saeflow.chess.commands import app
from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.examples import Examples, examples
from saeflow.chess.games.moves import MOVES, legal_moves, move_indices
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.player.io import load_maia2, save_maia2
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.metrics import CHANGE_SCHEMA, measure_change
from saeflow.chess.player.settings import Accuracy, ChessModel
from saeflow.chess.player.training import HEADS, train_maia2
from saeflow.errors import SaeflowError
from saeflow.models import training
from saeflow.tables import read_table, write_table

SHAPE = ChessModel(
    dim_cnn=8, blocks_cnn=1, dim_vit=16, blocks_vit=1, heads=2, dim_head=8, dim_elo=4, dim_value=8
)
SETTINGS = FineTuning(batch_size=32, epochs=8, learning_rate=1e-2, dropout_cnn=0.0, dropout=0.0)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """Random games; those of the splits `model` and `eval` are used."""
    return positions_table(random_play(1500, seed=21, share=0.1))


@pytest.fixture(scope="module")
def splits(table: pl.DataFrame) -> dict[str, Examples]:
    return {split: examples(table.filter(split=split)) for split in ("model", "eval")}


@pytest.fixture(scope="module")
def evaluations(splits: dict[str, Examples]) -> pl.DataFrame:
    """A planted engine: the best of the legal moves is the last one; every other move that is
    played is a blunder."""
    parts = []
    for split, part in splits.items():
        legal = legal_moves(part.boards)
        best = legal.shape[1] - 1 - legal[:, ::-1].argmax(axis=1)
        moves = [MOVES[move] for move in best]
        values = {
            "split": split,
            "row": np.arange(len(moves)),
            "fen": write_fens(part.boards),
            "best": moves,
        }
        values |= {
            "move": [MOVES[move] for move in part.moves],
            "loss": np.where(best == part.moves, 0.0, 3.0),
        }
        parts.append(
            pl.DataFrame(values | {"evaluation": 0.0, "evaluation_after": 0.0, "engine": "planted"})
        )
    return pl.concat(parts).select(pl.col(name).cast(kind) for name, kind in ENGINE.items())


@pytest.fixture(scope="module")
def blunders(evaluations: pl.DataFrame) -> pl.DataFrame:
    return blunder_set(evaluations, evaluations.filter(pl.col("split") == "eval").head(50), 1.5)


@pytest.fixture(scope="module")
def divided(blunders: pl.DataFrame, splits: dict[str, Examples]) -> Lessons:
    return lessons(blunders, splits, 0.5, seed=0)


@pytest.fixture(scope="module")
def player() -> Maia2:
    torch.manual_seed(0)
    return Maia2(SHAPE).eval().requires_grad_(False)


def tuned(
    player: Maia2, divided: Lessons, settings: FineTuning = SETTINGS, **options: object
) -> Maia2:
    return train_maia2(
        SHAPE, settings, divided.learned, 3, start=player.state_dict(), **options
    ).model


def weights(model: Maia2) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_a_blunder_loses_at_least_what_the_threshold_says(evaluations: pl.DataFrame) -> None:
    few = evaluations.head(3).with_columns(loss=pl.Series([1.49, 1.5, 9.0]))
    few_blunders = blunder_set(few, few.tail(1).with_columns(best=pl.lit(None, pl.String)), 1.5)
    assert dict(few_blunders.schema) == BLUNDERS
    assert few_blunders["row"].to_list() == few["row"][1:].to_list()
    assert few_blunders["source"].unique().to_list() == ["played"]


def test_the_best_move_is_taught_at_the_rating_of_the_player_who_blundered(
    blunders: pl.DataFrame, splits: dict[str, Examples]
) -> None:
    held = lessons(blunders, splits, 0.5, seed=0)
    by_fen = dict(blunders.select("fen", "best").iter_rows())
    rating = {}
    for part in splits.values():
        for fen, own in zip(write_fens(part.boards), part.rating_self, strict=True):
            rating.setdefault(fen, set()).add(int(own))
    for part in held[:2]:
        fens = write_fens(part.boards)
        assert part.moves.tolist() == move_indices([by_fen[fen] for fen in fens]).tolist()
        assert all(int(own) in rating[fen] for fen, own in zip(fens, part.rating_self, strict=True))


def test_no_game_and_no_position_is_both_learned_from_and_measured_on(
    divided: Lessons, blunders: pl.DataFrame, splits: dict[str, Examples]
) -> None:
    learned, held_out, games = divided
    assert not set(learned.games.tolist()) & set(held_out.games.tolist())
    assert not set(write_fens(learned.boards)) & set(write_fens(held_out.boards))
    once = blunders.unique(["split", "row"]).height
    assert 0.9 * once < len(learned.games) + len(held_out.games) <= once
    assert 0.4 < len(held_out.games) / once < 0.6
    assert set(games) == {"model", "eval"}
    rest = without(splits["eval"], games["eval"])
    assert 0 < len(rest.games) < len(splits["eval"].games)
    assert not set(rest.games.tolist()) & set(games["eval"].tolist())


def test_what_cannot_be_learned_from_is_told_in_one_sentence(
    blunders: pl.DataFrame, splits: dict[str, Examples]
) -> None:
    with pytest.raises(
        SaeflowError, match=r"blunders were found in 0 games.*raise engine\.positions"
    ):
        lessons(blunders.clear(), splits, 0.5, seed=0)
    with pytest.raises(SaeflowError, match="blunders were found in 1 games"):
        lessons(blunders.head(1), splits, 0.5, seed=0)
    with pytest.raises(
        SaeflowError, match="the blunders are of other positions than these; delete"
    ):
        lessons(blunders.with_columns(row=pl.col("row").reverse()), splits, 0.5, seed=0)
    with pytest.raises(
        SaeflowError, match="the blunders are of other positions than these; delete"
    ):
        lessons(blunders.with_columns(row=pl.col("row") + 10**6), splits, 0.5, seed=0)


def test_tuning_raises_accuracy_on_blunders_that_were_held_out(
    player: Maia2, divided: Lessons
) -> None:
    change = measure_change(player, tuned(player, divided), divided.held_out, seed=0)
    assert dict(change.schema) == CHANGE_SCHEMA
    whole = change.row(0, named=True)
    assert (whole["rating_bin"], whole["n"]) == (None, len(divided.held_out.games))
    assert whole["gain"] == pytest.approx(whole["top1_after"] - whole["top1_before"])
    assert whole["gain_low"] > 0.1
    assert whole["loss_after"] < whole["loss_before"]
    by_bin = change.filter(pl.col("rating_bin").is_not_null())
    assert by_bin["n"].sum() == whole["n"]
    weighted = (by_bin["top1_after"] * by_bin["n"]).sum() / whole["n"]
    assert weighted == pytest.approx(whole["top1_after"])


def test_a_change_cannot_be_measured_where_every_game_was_learned_from(
    player: Maia2, splits: dict[str, Examples]
) -> None:
    rest = without(splits["eval"], np.unique(splits["eval"].games))
    with pytest.raises(
        SaeflowError, match="no position is left that was not learned from; get more games"
    ):
        measure_change(player, player, rest, seed=0)


def test_nothing_gained_where_nothing_was_learned(player: Maia2, divided: Lessons) -> None:
    change = measure_change(player, player, divided.held_out, seed=0)
    assert change["gain"].abs().max() == 0
    assert change["loss_after"].equals(change["loss_before"])


def test_tuning_goes_on_from_the_player_and_not_from_new_weights(
    player: Maia2, divided: Lessons
) -> None:
    short = SETTINGS.model_copy(update={"positions": 32, "learning_rate": 1e-9})
    assert torch.allclose(
        weights(tuned(player, divided, short))[:500], weights(player)[:500], atol=1e-6
    )
    fresh = train_maia2(SHAPE, short, divided.learned, 3).model
    assert not torch.allclose(weights(fresh)[:500], weights(player)[:500], atol=1e-3)


@pytest.mark.parametrize("at", [1, 9])
def test_an_interrupted_tuning_ends_with_the_weights_of_an_uninterrupted_one(
    player: Maia2, divided: Lessons, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    settings = SETTINGS.model_copy(update={"positions": 500, "dropout": 0.1})
    whole = tuned(player, divided, settings)
    checkpoint = tmp_path / "state.pt"

    def killed(done: int, _total: int, _note: str) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(player, divided, settings, checkpoint=checkpoint, progress=killed)
    steps: list[int] = []
    resumed = tuned(
        player,
        divided,
        settings,
        checkpoint=checkpoint,
        progress=lambda done, *_: steps.append(done),
    )
    assert steps[0] == at + 1
    assert torch.equal(weights(resumed), weights(whole))


def test_another_player_s_checkpoint_is_not_taken_up(
    player: Maia2, divided: Lessons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    settings = SETTINGS.model_copy(update={"positions": 64})
    tuned(player, divided, settings, checkpoint=tmp_path / "state.pt")
    other = Maia2(SHAPE).requires_grad_(False)
    steps: list[int] = []
    tuned(
        other,
        divided,
        settings,
        checkpoint=tmp_path / "state.pt",
        progress=lambda done, *_: steps.append(done),
    )
    assert steps == [1, 2]


def test_the_commands_tune_and_measure(
    player: Maia2, table: pl.DataFrame, evaluations: pl.DataFrame, divided: Lessons, tmp_path: Path
) -> None:
    table.write_parquet(tmp_path / "positions.parquet")
    blunders = blunder_set(evaluations, evaluations.clear(), 1.5)
    write_table(tmp_path / "blunders.parquet", blunders, BLUNDERS)
    save_maia2(tmp_path / "player", player, {})
    common = [
        "--model",
        str(tmp_path / "player"),
        "--positions",
        str(tmp_path / "positions.parquet"),
        "--seed",
        "0",
    ]
    common += [
        "--blunders",
        str(tmp_path / "blunders.parquet"),
        "--settings",
        SETTINGS.model_dump_json(),
    ]
    tune = [
        "tune",
        *common,
        "--checkpoint",
        str(tmp_path / "state.pt"),
        "--output",
        str(tmp_path / "tuned"),
    ]
    measure = ["measure-tuning", *common, "--tuned", str(tmp_path / "tuned")]
    measure += [
        "--accuracy",
        Accuracy(positions=10).model_dump_json(),
        "--output",
        str(tmp_path / "tuning.parquet"),
    ]
    for line in (tune, measure):
        assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    assert json.loads((tmp_path / "tuned/config.json").read_text())["tuned"] == "player"
    assert load_maia2(tmp_path / "tuned").shape == SHAPE
    assert not (tmp_path / "state.pt").exists()
    blunders = read_table(tmp_path / "tuning.parquet", FINE_TUNING)
    assert set(blunders["set"]) == {"blunders", "ordinary"}
    whole = {row["set"]: row for row in blunders.filter(pl.col("rating_bin").is_null()).to_dicts()}
    assert whole["blunders"]["gain_low"] > 0.1
    assert 0 < whole["ordinary"]["n"] <= 110


def test_heads_learn_alone_and_every_activation_stays_as_it_was(
    player: Maia2, divided: Lessons
) -> None:
    trained = train_maia2(
        SHAPE, SETTINGS, divided.learned, 0, start=player.state_dict(), parts=HEADS
    ).model
    changed = {
        name.partition(".")[0]
        for name, tensor in trained.state_dict().items()
        if not torch.equal(tensor, player.state_dict()[name])
    }
    assert {"fc_1"} <= changed <= set(HEADS)
    change = measure_change(player, trained, divided.held_out, 0)
    assert change.row(0, named=True)["gain"] > 0


def test_the_strongest_rating_s_move_is_taught_where_it_is_asked_for(
    player: Maia2, divided: Lessons
) -> None:
    taught = strongest_moves(player, divided.learned)
    top = np.full(len(taught.moves), len(RATING_BINS) - 1, np.int8)
    as_strongest = taught._replace(rating_self=top, rating_oppo=top)
    change = measure_change(player, player, as_strongest, 0).row(0, named=True)
    assert change["top1_before"] == 1
    assert np.array_equal(taught.rating_self, divided.learned.rating_self)
    assert not np.array_equal(taught.moves, divided.learned.moves)
