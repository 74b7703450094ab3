"""A model of human play at work: games with itself, accuracy by rating, cached activations, SAEs in
its stream."""

from __future__ import annotations

import chess
import numpy as np
import pytest
import torch
from chess_games import random_turns

from saeflow.activations.capture import capture_rows
from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import MOVES, legal_moves, move_indices
from saeflow.chess.games.positions import SCHEMA
from saeflow.chess.games.settings import SelfPlay
from saeflow.chess.player import self_play
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.metrics import METRICS_SCHEMA, balanced, measure_maia2, move_counts
from saeflow.chess.player.planes import encode
from saeflow.chess.player.self_play import play_games
from saeflow.chess.player.settings import ChessModel
from saeflow.chess.saes.evaluation import evaluate_on_boards
from saeflow.chess.saes.source import board_source
from saeflow.config import Activations
from saeflow.models.modules import capture_modules
from saeflow.saes.sae import SAE

SHAPE = ChessModel(
    dim_cnn=8, blocks_cnn=1, dim_vit=16, blocks_vit=2, heads=2, dim_head=6, dim_elo=4, dim_value=8
)
HOOK = "blocks.1.resid_post"


@pytest.fixture(scope="module")
def model() -> Maia2:
    torch.manual_seed(0)
    return Maia2(SHAPE).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def examples() -> Examples:
    turns = random_turns(300, seed=4)
    count = np.arange(len(turns))
    return Examples(
        boards=read_fens([turn.board.fen() for turn in turns]),
        moves=move_indices([turn.seen_move for turn in turns]).astype(np.int16),
        rating_self=(count % 3 * 5).astype(np.int8),
        rating_oppo=(count % 11).astype(np.int8),
        result=(count % 3 - 1).astype(np.int8),
        games=count // 10,
    )


@pytest.fixture(scope="module")
def games(model):
    return play_games(model, SelfPlay(games=20, last_ply=40), seed=1)


def test_games_with_itself_are_games_that_python_chess_follows(games):
    assert dict(games.schema) == SCHEMA
    for _, game in games.group_by("game", maintain_order=True):
        board, result = chess.Board(), "*"
        for row in game.iter_rows(named=True):
            assert row["black"] is (board.turn == chess.BLACK)
            seen = board if board.turn else board.mirror()
            assert row["fen"].split(" ")[:4] == seen.fen().split(" ")[:4]
            move = chess.Move.from_uci(row["move"])
            flip = 0 if board.turn else 56
            board.push(chess.Move(move.from_square ^ flip, move.to_square ^ flip, move.promotion))
        result = board.outcome().winner if board.is_checkmate() else None
        expected = [
            0 if result is None else 1 if (colour is False) == result else -1
            for colour in game["black"]
        ]
        assert game["result"].to_list() == expected
        assert game["ply"].to_list() == list(range(game.height))


def test_a_game_does_not_depend_on_those_beside_it(model, games, monkeypatch):
    monkeypatch.setattr(self_play, "GAMES_AT_ONCE", 11)
    alone = play_games(model, SelfPlay(games=20, last_ply=40), seed=1)
    same = (alone["move"] == games["move"]).mean() if alone.height == games.height else 0.0
    assert same > 0.99  # sums of products may differ in the last bit with the number of rows
    assert not play_games(model, SelfPlay(games=20, last_ply=40), seed=2)["move"].equals(
        games["move"]
    )


def test_moves_are_drawn_as_the_model_says(model):
    """Of many first moves each is played about as often as it is probable."""
    played = play_games(model, SelfPlay(games=2000, last_ply=0), seed=0)
    start = read_fens([chess.STARTING_FEN])
    legal = torch.from_numpy(legal_moves(start))
    expected = torch.zeros(len(MOVES), dtype=torch.float64)
    for own, other in played.select("bin_self", "bin_oppo").iter_rows():
        logits = model(encode(start), torch.tensor([own]), torch.tensor([other])).moves
        expected += logits.double().masked_fill(~legal, -torch.inf).softmax(dim=1)[0]
    counted = np.bincount(move_indices(played["move"].to_list()), minlength=len(MOVES))
    possible = legal[0].numpy()
    chi2 = ((counted - expected.numpy())[possible] ** 2 / expected.numpy()[possible]).sum()
    assert chi2 < 43.8  # 19 degrees of freedom, p = 0.001


def test_accuracy_by_rating_is_that_of_a_slow_count(model, examples):
    counts = move_counts(examples)
    table = measure_maia2(model, examples, counts, seed=0)
    assert dict(table.schema) == METRICS_SCHEMA
    assert table.height == 3 * 11
    for rating, told_bin in ((0, 0), (5, 10), (10, 3)):
        here = examples.part(np.flatnonzero(examples.rating_self == rating))
        own, other = (
            torch.full((len(here.moves),), told_bin),
            torch.from_numpy(here.rating_oppo).long(),
        )
        logits = model(encode(here.boards), own, other).moves.numpy()
        hits, thirds, nats, frequent = [], [], [], []
        for row, move, may in zip(logits, here.moves, legal_moves(here.boards), strict=True):
            among = {int(index): float(row[index]) for index in np.flatnonzero(may)}
            order = sorted(among, key=among.__getitem__, reverse=True)
            hits.append(order[0] == move)
            thirds.append(move in order[:3])
            nats.append(np.log(sum(np.exp(value) for value in among.values())) - among[int(move)])
            often = {index: counts[index] + 1 for index in among}
            frequent.append(np.log(sum(often.values())) - np.log(often[int(move)]))
        table_row = table.filter(rating_bin=rating, told=told_bin).row(0, named=True)
        assert table_row["n"] == len(here.moves)
        assert table_row["games"] == len(np.unique(here.games))
        assert table_row["top1"] == pytest.approx(np.mean(hits))
        assert table_row["top3"] == pytest.approx(np.mean(thirds))
        assert table_row["loss"] == pytest.approx(np.mean(nats), rel=1e-4)
        assert table_row["loss_frequent"] == pytest.approx(np.mean(frequent), rel=1e-6)
        assert table_row["loss_uniform"] == pytest.approx(
            np.log(legal_moves(here.boards).sum(axis=1)).mean()
        )
        assert table_row["top1_low"] <= table_row["top1"] <= table_row["top1_high"]
    own_bin = table.filter(table["told"] == table["rating_bin"])
    assert (
        own_bin["gain"].to_list()
        == own_bin["gain_low"].to_list()
        == own_bin["gain_high"].to_list()
        == [0.0] * 3
    )


def test_bins_are_balanced_by_a_named_draw(examples):
    few = balanced(examples, 40, seed=0)
    assert np.bincount(few.rating_self).tolist() == [40, 0, 0, 0, 0, 40, 0, 0, 0, 0, 40]
    assert np.array_equal(few.moves, balanced(examples, 40, seed=0).moves)
    assert np.all(np.diff(few.games) >= 0)


@pytest.mark.parametrize("tokens", ["mean", "all"])
def test_the_cache_holds_what_the_sites_give(model, examples, tokens):
    source = board_source(model, examples, tokens)
    settings = Activations(exclude="nothing")
    parts = list(capture_rows(source, [HOOK, "blocks.0.attn"], settings))
    inputs = (
        encode(examples.boards),
        torch.from_numpy(examples.rating_self).long(),
        torch.from_numpy(examples.rating_oppo).long(),
    )
    read = capture_modules(model, inputs, [HOOK, "blocks.0.attn"])
    for hook, direct in read.items():
        cached = torch.cat([part[hook].activations for part in parts])
        expected = direct.mean(dim=1) if tokens == "mean" else direct.flatten(0, 1)
        assert torch.allclose(cached, expected, atol=1e-6)


def identity_sae(width: int, bias: float = 0.0) -> SAE:
    """Two latents per dimension, one per sign: without bias reconstruction is exact."""
    eye = torch.eye(width)
    both = torch.cat([eye, -eye])
    return SAE(
        "standard",
        W_enc=both.T.clone(),
        W_dec=both,
        b_enc=torch.full((2 * width,), bias),
        b_dec=torch.zeros(width),
    )


@pytest.mark.parametrize("tokens", ["mean", "all"])
def test_a_perfect_sae_changes_no_move_and_a_silent_one_is_measured(model, examples, tokens):
    metrics = evaluate_on_boards(model, identity_sae(16), HOOK, tokens, examples)
    assert metrics["explained_variance"] == pytest.approx(1, abs=1e-6)
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["agreement"] == 1
    assert metrics["loss_sae"] == pytest.approx(metrics["loss_clean"], abs=1e-5)
    assert metrics["l0"] == pytest.approx(16)
    nothing = evaluate_on_boards(model, identity_sae(16, bias=-1e6), HOOK, tokens, examples)
    assert nothing["l0"] == 0
    assert nothing["kl"] > 1e-4
    assert nothing["kl_se"] > 0
