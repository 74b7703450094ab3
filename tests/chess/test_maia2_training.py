"""Training a model of human play: it learns, an interruption does not show, and its losses are what
they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chess_games import random_turns

from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import legal_moves, move_indices, side_information
from saeflow.chess.player.maia2 import Maia2Output
from saeflow.chess.player.settings import ChessModel, ChessTraining
from saeflow.chess.player.training import losses_of, train_maia2
from saeflow.models import training

SHAPE = ChessModel(
    dim_cnn=8, blocks_cnn=1, dim_vit=16, blocks_vit=2, heads=2, dim_head=8, dim_elo=4, dim_value=8
)
SETTINGS = ChessTraining(
    batch_size=16, epochs=2, learning_rate=1e-2, warmup_steps=3, dropout_cnn=0.2
)


@pytest.fixture(scope="module")
def examples() -> Examples:
    turns = random_turns(100)
    count = np.arange(len(turns))
    return Examples(
        boards=read_fens([turn.board.fen() for turn in turns]),
        moves=move_indices([turn.seen_move for turn in turns]).astype(np.int16),
        rating_self=(count % 11).astype(np.int8),
        rating_oppo=(count % 7).astype(np.int8),
        result=(count % 3 - 1).astype(np.int8),
        games=count,
    )


def weights(trained) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in trained.model.state_dict().values()])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("at", [1, 8])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    examples, at, precision, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    settings = SETTINGS.model_copy(update={"precision": precision})
    whole = train_maia2(SHAPE, settings, examples, 3)
    checkpoint, steps = tmp_path / "state.pt", []

    def killed(done, _total, _note):
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_maia2(SHAPE, settings, examples, 3, checkpoint, killed)
    torch.manual_seed(at)  # the global generator must not matter
    resumed = train_maia2(
        SHAPE, settings, examples, 3, checkpoint, lambda done, *_: steps.append(done)
    )
    assert steps == list(range(at + 1, 15))
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.curve.equals(whole.curve)


def test_positions_can_be_learned_by_heart(examples):
    settings = SETTINGS.model_copy(update={"epochs": 40, "dropout_cnn": 0.0, "dropout": 0.0})
    trained = train_maia2(SHAPE, settings, examples, 0)
    first, last = trained.curve.row(0, named=True), trained.curve.row(-1, named=True)
    assert first["loss_move"] > 7  # uniform over 1,880 moves is 7.5
    assert last["loss_move"] < 1
    assert last["loss_side"] < 0.1 * first["loss_side"]
    assert last["loss_value"] < 0.5 * first["loss_value"]
    assert last["positions"] == 4000


def test_training_ends_after_the_positions_it_is_given(examples):
    settings = SETTINGS.model_copy(update={"positions": 150})
    curve = train_maia2(SHAPE, settings, examples, 0).curve
    assert curve["step"][-1] == 10  # 7 steps of the first epoch, 3 of the second
    assert curve["positions"][-1] == 148


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(examples):
    first, two, other = (train_maia2(SHAPE, SETTINGS, examples, seed) for seed in (0, 0, 1))
    assert torch.equal(weights(first), weights(two))
    assert not torch.equal(weights(first), weights(other))


def test_the_losses_are_those_of_the_formulas(examples):
    few = examples.part(slice(0, 9))
    draw = torch.Generator().manual_seed(0)
    output = Maia2Output(
        *(torch.randn(9, *shape, generator=draw) for shape in ((1880,), (2021,), ()))
    )
    losses = losses_of(output, few)
    moves = output.moves.double().numpy()
    chosen = moves[np.arange(9), few.moves] - np.log(np.exp(moves).sum(axis=1))
    assert losses.move.item() == pytest.approx(-chosen.mean(), rel=1e-5)
    legal = legal_moves(few.boards)
    side = output.side.double().numpy()
    of_legal = side[:, 141:]
    expected = np.log1p(np.exp(-of_legal)) * legal + np.log1p(np.exp(of_legal)) * ~legal
    logits = side[
        :, :141
    ]  # a move's own part: ones where python-chess has them is tested with the boards
    of_move = np.log1p(np.exp(logits)).sum()
    of_move -= (logits * side_information(few.boards, few.moves.astype(int), legal)[:, :141]).sum()
    assert losses.side.item() == pytest.approx((expected.sum() + of_move) / (9 * 2021), rel=1e-5)
    assert losses.value.item() == pytest.approx(
        np.square(output.value.numpy() - few.result).mean(), rel=1e-5
    )
