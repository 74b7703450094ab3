"""Training of a model of human play: the move, what is to be said of it, and the result, all at
once.

As in `training`, a step is named by its number alone, dropout's draws too: a run that is
interrupted and goes on ends with the weights, to the bit, of a run that is not.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from saeflow import seeds
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import legal_moves, side_information
from saeflow.chess.player.maia2 import Maia2, Maia2Output
from saeflow.chess.player.planes import model_inputs
from saeflow.chess.player.settings import ChessModel, ChessTraining
from saeflow.models import training
from saeflow.products import dtype_on

CURVE_SCHEMA = {
    "step": pl.Int64,
    "positions": pl.Int64,
    "loss_move": pl.Float64,  # nats
    "loss_side": pl.Float64,
    "loss_value": pl.Float64,
    "learning_rate": pl.Float64,
}


class Losses(NamedTuple):
    """Mean losses of the three heads over a batch."""

    move: Float[Tensor, ""]
    side: Float[Tensor, ""]
    value: Float[Tensor, ""]


class TrainedMaia2(NamedTuple):
    """A trained model and how it came about.

    Attributes:
        model: in evaluation mode, without gradients.
        curve: one row per stretch of steps, as `CURVE_SCHEMA` has it.
    """

    model: Maia2
    curve: pl.DataFrame


HEADS = ("fc_1", "fc_2", "fc_3", "fc_3_1")
"""The modules that say what is played, what there is to say of it, and how the game ends."""


def train_maia2(
    shape: ChessModel,
    settings: ChessTraining,
    examples: Examples,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    start: Mapping[str, Tensor] | None = None,
    parts: Sequence[str] = (),
    *,
    device: str = "cpu",
) -> TrainedMaia2:
    """Train a model with Maia-2's architecture, from the beginning or further.

    The loss is the published one: cross-entropy over all moves, illegal ones too, binary
    cross-entropy of the side information, squared error of the result. AdamW, linear warm-up,
    cosine decay to zero, float32.

    Args:
        shape: of the model.
        settings: of the training.
        examples: what it learns from.
        seed: the study's.
        checkpoint: file that keeps the state of an unfinished training; it is taken up if it
            belongs to this very training, and left for the caller to delete once the model is
            saved.
        progress: called with (steps done, steps in all, what the losses are).
        start: weights by name to go on from, of a model of this shape; default are new ones.
        parts: modules that learn, such as `HEADS`; all others stay as they are, running means of
            norms among them. Default is all.
        device: where it is trained; the trained model is on the CPU.

    Source: Tang et al. 2024 (arXiv 2409.20553), section 3.3.
    """
    count = len(examples.moves)
    per_epoch = math.ceil(count / settings.batch_size)
    steps = per_epoch * settings.epochs
    if settings.positions:
        steps = min(steps, math.ceil(settings.positions / settings.batch_size))
    model = new_maia2(shape, settings, seed)
    if start:
        model.load_state_dict(start)
    model.to(device)
    if parts:
        model.eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.partition(".")[0] in parts)
    optimizer = training.adamw(model, settings)
    identity = _identity(shape, settings, examples, seed, start or {})
    losses: list[list[float]] = training.resume_state(checkpoint, identity, model, optimizer)
    saved, order, of_epoch = time.monotonic(), np.empty(0, np.int64), -1

    for step in range(len(losses), steps):
        epoch, batch = divmod(step, per_epoch)
        if epoch != of_epoch:
            order, of_epoch = (
                seeds.numpy_generator(seed, "chess", "order", epoch).permutation(count),
                epoch,
            )
        chosen = np.sort(order[batch * settings.batch_size :][: settings.batch_size])
        rate = training.learning_rate(step, steps, settings)
        losses.append(
            _step(
                model,
                optimizer,
                examples.part(chosen),
                settings,
                rate,
                seeds.seed_for(seed, "drop", step),
            )
        )
        if checkpoint and time.monotonic() - saved > training.CHECKPOINT_SECONDS:
            training.save_state(checkpoint, identity, model, optimizer, losses)
            saved = time.monotonic()
        if progress:
            recent = np.mean(losses[-100:], axis=0)
            progress(
                step + 1, steps, "loss of moves {:.3f}, side {:.4f}, value {:.3f}".format(*recent)
            )

    return TrainedMaia2(
        model.cpu().eval().requires_grad_(False), _curve(losses, steps, count, settings)
    )


def new_maia2(shape: ChessModel, settings: ChessTraining, seed: int) -> Maia2:
    """An untrained model, its weights drawn by name."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        torch.manual_seed(seeds.seed_for(seed, "chess", "weights"))
        return Maia2(shape, settings.dropout_cnn, settings.dropout).train()


def losses_of(output: Maia2Output, examples: Examples) -> Losses:
    """The losses of the three heads on some positions."""
    moves, device = examples.moves.astype(np.int64), output.moves.device
    side = torch.from_numpy(side_information(examples.boards, moves, legal_moves(examples.boards)))
    return Losses(
        cross_entropy(output.moves, torch.from_numpy(moves).to(device)),
        binary_cross_entropy_with_logits(output.side, side.to(device)),
        mse_loss(output.value, torch.from_numpy(examples.result).float().to(device)),
    )


def _step(
    model: Maia2,
    optimizer: torch.optim.Optimizer,
    batch: Examples,
    settings: ChessTraining,
    rate: float,
    draw: int,
) -> list[float]:
    dtype = dtype_on(model.device, getattr(torch, settings.precision))
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    with half, torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(draw)
        output = model(*model_inputs(batch, model.device))
    losses = losses_of(Maia2Output(*(logits.float() for logits in output)), batch)
    total = losses.move + settings.side_weight * losses.side + settings.value_weight * losses.value
    torch.autograd.backward(total)
    nn.utils.clip_grad_norm_(model.parameters(), training.GRADIENT_NORM)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return [loss.item() for loss in losses]


def _curve(
    losses: list[list[float]], steps: int, count: int, settings: ChessTraining
) -> pl.DataFrame:
    bounds = np.unique(
        np.linspace(0, steps, min(training.CURVE_POINTS, steps) + 1).astype(int)
    ).tolist()
    per_epoch = math.ceil(count / settings.batch_size)
    rows = [
        (
            end,
            end // per_epoch * count + end % per_epoch * settings.batch_size,
            *np.mean(losses[start:end], axis=0).tolist(),
            training.learning_rate(end - 1, steps, settings),
        )
        for start, end in pairwise(bounds)
    ]
    return pl.DataFrame(rows, schema=CURVE_SCHEMA, orient="row")


def _identity(
    shape: ChessModel,
    settings: ChessTraining,
    examples: Examples,
    seed: int,
    start: Mapping[str, Tensor],
) -> str:
    """What makes a training this one: its settings, its positions, its seed, what it goes on
    from."""
    digest = hashlib.sha256(f"{shape.model_dump_json()}{settings.model_dump_json()}{seed}".encode())
    for column in (
        examples.boards.pieces,
        examples.boards.castling,
        examples.boards.en_passant,
        *examples[1:],
    ):
        digest.update(np.ascontiguousarray(column).data)
    for tensor in start.values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
