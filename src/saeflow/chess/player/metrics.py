"""How well a model predicts what people of each rating play, beside two players who know nothing of
the position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int, Int64
from torch import Tensor

from saeflow import seeds
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import MOVES
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.planes import legal_mask, mask_illegal, model_inputs
from saeflow.errors import SaeflowError
from saeflow.statistics.clusters import CHANGE, SHARE, Resampling, cells

POSITIONS_AT_ONCE = 512
RESAMPLES, LEVEL = 1000, 0.95
METRICS_SCHEMA = {
    "rating_bin": pl.Int8,
    "ratings": pl.String,
    "told": pl.Int8,  # the bin of the player that the model is told
    "n": pl.Int64,
    "games": pl.Int64,
    "top1": pl.Float64,  # with legal moves only
    "top1_low": pl.Float64,  # 95 % interval, games resampled
    "top1_high": pl.Float64,
    "top3": pl.Float64,
    "loss": pl.Float64,  # nats, over legal moves
    # top1 when told this bin minus top1 when told the true one, on the same positions
    "gain": pl.Float64,
    "gain_low": pl.Float64,
    "gain_high": pl.Float64,
    "illegal": pl.Float64,  # share of positions whose largest raw logit is no legal move's
    "loss_uniform": pl.Float64,  # all legal moves alike
    "top1_uniform": pl.Float64,
    # legal moves in proportion to how often they were played in training
    "loss_frequent": pl.Float64,
    "top1_frequent": pl.Float64,
}

CHANGE_SCHEMA = {
    "rating_bin": pl.Int8,  # null: all of them
    "ratings": pl.String,
    "n": pl.Int64,
    "games": pl.Int64,
    "top1_before": pl.Float64,  # with legal moves only, told the player's own rating
    "top1_before_low": pl.Float64,  # 95 % interval, games resampled
    "top1_before_high": pl.Float64,
    "top1_after": pl.Float64,
    "top1_after_low": pl.Float64,
    "top1_after_high": pl.Float64,
    "gain": pl.Float64,  # after minus before, on the same positions
    "gain_low": pl.Float64,
    "gain_high": pl.Float64,
    "loss_before": pl.Float64,  # nats, over legal moves
    "loss_after": pl.Float64,
}


def balanced(examples: Examples, per_bin: int, seed: int) -> Examples:
    """At most ``per_bin`` positions of every rating bin of the player, drawn by name, in their
    order."""
    chosen = []
    for rating in range(len(RATING_BINS)):
        here = np.flatnonzero(examples.rating_self == rating)
        draw = seeds.numpy_generator(seed, "chess", "balanced", rating)
        chosen.append(draw.choice(here, min(per_bin, len(here)), replace=False))
    return examples.part(np.sort(np.concatenate(chosen)))


def move_counts(examples: Examples) -> Int64[np.ndarray, " 1880"]:
    """How often each move was played."""
    return np.bincount(examples.moves, minlength=len(MOVES))


@torch.no_grad()
def measure_maia2(
    model: Maia2,
    examples: Examples,
    counts: Int64[np.ndarray, " 1880"],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Accuracy and loss by rating bin, when the model is told the true bin of the player and when
    told any other.

    Args:
        model: in evaluation mode.
        examples: held-out positions; the opponent's bin is told as it is.
        counts: of the moves in training, for the baseline of the most frequent move; each counts
            one more.
        seed: of the resampling.
        progress: called with (positions done, positions in all).

    Returns:
        One row per rating bin and told bin, as `METRICS_SCHEMA` has it. Intervals resample whole
        games.
    """
    n, n_bins = len(examples.moves), len(RATING_BINS)
    first, third, illegal = (np.zeros((n, n_bins), bool) for _ in range(3))
    loss = np.zeros((n, n_bins))
    blind = np.zeros((n, 4))
    frequency = torch.from_numpy(counts + 1).double().log()
    for start in range(0, n, POSITIONS_AT_ONCE):
        part = slice(start, start + POSITIONS_AT_ONCE)
        batch = examples.part(part)
        moves, legal = torch.from_numpy(batch.moves).long(), legal_mask(batch.boards)
        planes, _, oppo = model_inputs(batch, model.device)
        tokens = model.embed(planes)
        for rating in range(n_bins):
            raw = model.judge(tokens, torch.full_like(oppo, rating), oppo).moves.cpu()
            ranks, nats, chosen_legal = _scored(raw, legal, moves)
            first[part, rating], third[part, rating] = ranks < 1, ranks < 3
            loss[part, rating], illegal[part, rating] = nats, ~chosen_legal
        blind[part] = _blind(frequency, legal, moves)
        if progress:
            progress(min(start + POSITIONS_AT_ONCE, n), n)
    rows = []
    for rating in np.unique(examples.rating_self):
        here = np.flatnonzero(examples.rating_self == rating)
        games = _resampling(examples, here, seed, int(rating))
        for other in range(n_bins):
            hit, true = first[here, other].astype(float), first[here, rating].astype(float)
            top1, gain = games.mean(hit, SHARE), games.mean(hit - true)
            own = (
                len(here),
                len(np.unique(examples.games[here])),
                *top1,
                third[here, other].mean(),
            )
            means = (
                loss[here, other].mean(),
                *cells(gain),
                illegal[here, other].mean(),
                *blind[here].mean(axis=0),
            )
            rows.append((rating, RATING_BINS[rating], other, *own, *means))
    return pl.DataFrame(rows, schema=METRICS_SCHEMA, orient="row")


def measure_change(before: Maia2, after: Maia2, examples: Examples, seed: int) -> pl.DataFrame:
    """Accuracy and loss of a model before and after further training, told the true ratings of both
    players.

    Args:
        before: in evaluation mode.
        after: the same.
        examples: positions that ``after`` has not learned from, with the moves that are right.
        seed: of the resampling.

    Returns:
        One row for all positions and one per rating bin of the player, as `CHANGE_SCHEMA` has it.
        Intervals resample whole games.

    Raises:
        SaeflowError: there are no positions.
    """
    if not len(examples.moves):
        raise SaeflowError("chess: no position is left that was not learned from; get more games")
    hits, nats = zip(*(_own_rating(model, examples) for model in (before, after)), strict=True)
    parts: list[tuple[int | None, str, Int64[np.ndarray, " m"]]] = [
        (None, "all", np.arange(len(examples.moves)))
    ]
    parts += [
        (int(rating), RATING_BINS[rating], np.flatnonzero(examples.rating_self == rating))
        for rating in np.unique(examples.rating_self)
    ]
    rows = []
    for rating, ratings, here in parts:
        games = _resampling(examples, here, seed, -1 if rating is None else rating)
        old, new = (hit[here].astype(float) for hit in hits)
        means = games.mean(old, SHARE), games.mean(new, SHARE), games.mean(new - old, CHANGE)
        intervals = [cell for mean in means for cell in cells(mean)]
        losses = [float(nat[here].mean()) for nat in nats]
        rows.append(
            (rating, ratings, len(here), len(np.unique(examples.games[here])), *intervals, *losses)
        )
    return pl.DataFrame(rows, schema=CHANGE_SCHEMA, orient="row")


@torch.no_grad()
def _own_rating(
    model: Maia2, examples: Examples
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Whether the right move is the model's first choice among legal ones, and its loss."""
    hits, nats = [], []
    for start in range(0, len(examples.moves), POSITIONS_AT_ONCE):
        batch = examples.part(slice(start, start + POSITIONS_AT_ONCE))
        raw = model(*model_inputs(batch, model.device)).moves.cpu()
        ranks, loss, _ = _scored(
            raw, legal_mask(batch.boards), torch.from_numpy(batch.moves).long()
        )
        hits.append(ranks < 1)
        nats.append(loss)
    return np.concatenate(hits), np.concatenate(nats)


def _scored(
    raw: Tensor, legal: Tensor, moves: Int[Tensor, " n"]
) -> tuple[Int[np.ndarray, " n"], Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The rank of the played move among legal ones, its loss, and whether the largest raw logit is
    a legal move's."""
    masked = mask_illegal(raw, legal)
    own = masked.gather(1, moves[:, None])
    ranks = (masked > own).sum(dim=1)
    nats = -masked.double().log_softmax(dim=1).gather(1, moves[:, None])[:, 0]
    return (
        ranks.numpy(),
        nats.numpy(),
        legal.gather(1, raw.argmax(dim=1, keepdim=True))[:, 0].numpy(),
    )


def _blind(
    frequency: Tensor, legal: Tensor, moves: Int[Tensor, " n"]
) -> Float64[np.ndarray, "n 4"]:
    """Loss and expected hits of a player who draws any legal move, and of one who knows how often
    moves are played."""
    options = legal.sum(dim=1).double()
    legal_frequency = mask_illegal(frequency.expand(len(moves), -1), legal)
    nats = -legal_frequency.log_softmax(dim=1).gather(1, moves[:, None])[:, 0]
    hits = (legal_frequency.argmax(dim=1) == moves).double()
    return torch.stack([options.log(), 1 / options, nats, hits], dim=1).numpy()


def _resampling(
    examples: Examples, here: Int64[np.ndarray, " m"], seed: int, rating: int
) -> Resampling:
    """Intervals of means over some positions, games the units.

    Gains have no unseen game: told its own bin, a model gains 0 by definition.
    """
    draw = seeds.numpy_generator(seed, "chess", "bootstrap", rating)
    return Resampling(examples.games[here], RESAMPLES, LEVEL, draw)
