"""How much of a vector: the scale at which the model's loss on text has risen by a given amount.

Each search is a coroutine that yields the next scale to try and is sent the loss there; `search`
runs those of all vectors side by side, so that the losses of one round are measured together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from saeflow.analyses.effects.settings import Scale
from saeflow.decoding.edits import Edit, apply
from saeflow.errors import SaeflowError
from saeflow.models.hooks import check_hook
from saeflow.models.running import next_token_losses, not_finite, run_prefix, suffix_states

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

Status = Literal["ok", "above_at_zero", "never_reached", "clamped", "zero_vector"]
STATUSES: tuple[Status, ...] = ("ok", "above_at_zero", "never_reached", "clamped", "zero_vector")

TOLERANCE = 0.05
"""Of the wanted rise of the loss: 0.025 of 0.5 nats, less than the 0.03 of standard error that
2,048 tokens leave."""
PART = 4  # searches begin from the loss on one block of the evaluation text in this many
# numbers; what stays in a CPU's cache, what a GPU's memory bears
LOGITS_AT_ONCE = {"cpu": 3 << 20, "cuda": 1 << 28}
TOKENS_AT_ONCE = 512  # but never fewer, or the weights are read more often than they are used

LossAt = Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]
"""Losses of vectors (by index) at scales, one each."""


class VectorScale(NamedTuple):
    """The scale of one vector."""

    scale: float
    loss: float
    """Measured at this scale, never interpolated."""
    status: Status
    """``ok``: the loss meets the target. ``above_at_zero``: it is above it unsteered; the scale is
    0. ``never_reached``: it stays below up to the maximum, which is the scale. ``clamped``: a fixed
    scale above the maximum was lowered to it. ``zero_vector``: there is nothing to scale."""


class Start(NamedTuple):
    """What a study's first searches tell the others."""

    scale: float
    """The first scale to try."""
    power: float
    """Of the scale, with which the loss rises near the target."""
    part_ratio: float = 1.0
    """Rise of the loss on the part of the text that is measured first, as a multiple of the rise
    on all of it."""


class PartLosses(NamedTuple):
    """The loss of every vector on a part of the text: it costs little and says where its search
    begins."""

    loss_at: LossAt
    unsteered: float
    """Loss of the part at scale 0."""


Search = Generator[float, float, VectorScale]


class Evaluation(NamedTuple):
    """Text whose loss is measured, run up to the hook once."""

    tokens: Int[Tensor, "batch pos"]
    resid: Float[Tensor, "batch pos d_model"]
    """The residual stream at the hook."""
    layer: int
    loss: float
    """Of the unsteered model, in nats per token."""


def prepare_evaluation(
    lm: LanguageModel, hook: str, tokens: Int[Tensor, "blocks pos"], settings: Scale
) -> Evaluation:
    """Run the first ``settings.tokens`` tokens up to the hook.

    Args:
        lm: the model.
        hook: a ``hook_resid_post``.
        tokens: blocks of the split ``eval``, BOS first.
        settings: how many tokens are used, rounded up to whole blocks.

    Raises:
        SaeflowError: the hook cannot be steered, there are too few tokens, or the loss is not a
            number.
    """
    parsed = check_hook(lm, hook)
    if parsed.site != "hook_resid_post":
        raise SaeflowError(f"effects: '{hook}' cannot be steered; take a hook_resid_post")
    if tokens.numel() < settings.tokens:
        raise SaeflowError(
            f"effects: scale.tokens is {settings.tokens} and the evaluation text has "
            f"{tokens.numel()} tokens; lower it or raise corpus.tokens.eval"
        )
    tokens = tokens[: -(-settings.tokens // tokens.shape[1])].to(lm.device)
    evaluation = Evaluation(tokens, run_prefix(lm, tokens, parsed.layer), parsed.layer, math.nan)
    loss = steered_loss(lm, evaluation, torch.zeros(lm.d_model, device=lm.device), 0.0)
    if not math.isfinite(loss):
        raise not_finite(lm, "effects: the loss on the evaluation text")
    return evaluation._replace(loss=loss)


def part_of(lm: LanguageModel, evaluation: Evaluation) -> Evaluation:
    """The part of the evaluation text on which every vector is measured first."""
    part = evaluation._replace(tokens=evaluation.tokens[::PART], resid=evaluation.resid[::PART])
    return part._replace(
        loss=steered_loss(lm, part, torch.zeros(lm.d_model, device=lm.device), 0.0)
    )


def steered_loss(
    lm: LanguageModel, evaluation: Evaluation, vector: Float[Tensor, " d_model"], scale: float
) -> float:
    """Mean loss in nats per token with a vector added at all positions; only the layers above the
    hook are run.

    One vector at a time fills the processor, since the evaluation text is thousands of tokens, and
    lets no vector's loss depend on another's.
    """
    batch, length = evaluation.tokens.shape
    tokens_at_once = max(TOKENS_AT_ONCE, LOGITS_AT_ONCE[lm.device.type] // lm.d_vocab)
    parts = -(-batch // max(1, tokens_at_once // length))
    at_once = -(-batch // parts)  # equal parts: a small last one costs as much as a large one
    total = 0.0
    for start in range(0, batch, at_once):
        resid = evaluation.resid[start : start + at_once]
        tokens = evaluation.tokens[start : start + at_once]
        edit = Edit("add", vector.float()[None], torch.tensor([scale], device=lm.device))
        steered = apply(edit, resid, 0, length)
        states = suffix_states(lm, resid if steered is None else steered, evaluation.layer)
        total += next_token_losses(lm, states, tokens).sum(dtype=torch.float64).item()
    return total / (batch * (length - 1))


def loss_of(
    lm: LanguageModel, evaluation: Evaluation, vectors: Float[Tensor, "n d_model"]
) -> LossAt:
    """The loss function of a search over vectors."""
    vectors = vectors.to(lm.device)

    def losses(indices: NDArray[np.int64], scales: NDArray[np.float64]) -> NDArray[np.float64]:
        pairs = zip(indices.tolist(), scales.tolist(), strict=True)
        return np.array(
            [steered_loss(lm, evaluation, vectors[index], scale) for index, scale in pairs]
        )

    return losses


class ScaleSearch(NamedTuple):
    """What is the same for every search of a study.

    Attributes:
        unsteered: loss at scale 0.
        settings: rule, target, largest scale, kind of search.
        mean_norm: mean norm of the activations at the hook, the unit of ``settings.maximum``.
    """

    unsteered: float
    settings: Scale
    mean_norm: float


def find_scales(
    loss_at: LossAt,
    n_vectors: int,
    search: ScaleSearch,
    start: Start | None = None,
    part: PartLosses | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[VectorScale]:
    """Find the scale of every vector.

    Args:
        loss_at: measures losses, non-finite ones count as infinite.
        n_vectors: how many vectors ``loss_at`` knows.
        search: what each is for.
        start: from `find_start`; without it, searches begin at an eighth of the maximum and expect
            a parabola.
        part: together with ``start`` lets every vector begin at a scale of its own.
        progress: called with (searches done, searches).

    Raises:
        SaeflowError: the mean norm is not a positive number.
    """
    unsteered, settings, mean_norm = search
    if not (math.isfinite(mean_norm) and mean_norm > 0):
        raise SaeflowError(
            f"effects: the mean activation norm is {mean_norm}; check the activations at the hook"
        )
    maximum = settings.maximum * mean_norm
    starts = [start or Start(maximum / 8, 2.0)] * n_vectors
    if start and part and settings.rule != "fixed" and settings.search == "bisect":
        starts = _starts(part, n_vectors, _target(settings, unsteered) - unsteered, start)
    searches = [_search(settings, unsteered, maximum, own_start) for own_start in starts]
    ended: dict[int, VectorScale] = {}
    answers: dict[int, float | None] = dict.fromkeys(range(n_vectors))
    while answers:
        wanted: dict[int, float] = {}
        for index, loss in answers.items():
            try:
                wanted[index] = (
                    next(searches[index]) if loss is None else searches[index].send(loss)
                )
            except StopIteration as end:
                ended[index] = end.value
        answers = dict(zip(wanted, _measure(loss_at, wanted), strict=True))
        if progress:
            progress(len(ended), n_vectors)
    return [ended[index] for index in range(n_vectors)]


def _starts(part: PartLosses, n_vectors: int, wanted: float, start: Start) -> list[Start]:
    """Where each search begins: a power law through one loss on the part of the text."""
    losses = part.loss_at(np.arange(n_vectors), np.full(n_vectors, start.scale))
    rises = np.nan_to_num((losses - part.unsteered) / start.part_ratio, nan=math.inf)
    factors = (wanted / np.maximum(rises, 1e-9)) ** (1 / start.power)
    return [start._replace(scale=start.scale * factor) for factor in factors.clip(0.25, 4.0)]


def find_start(
    loss_at: LossAt, n_vectors: int, search: ScaleSearch, part: PartLosses | None = None
) -> Start | None:
    """Where the searches of a study best begin, told by a few vectors; None if none of them meets
    the target.

    Args:
        loss_at: measures losses of the few vectors.
        n_vectors: how many they are.
        search: what each search is for.
        part: their losses on a part of the text.
    """
    unsteered, searched = search.unsteered, find_scales(loss_at, n_vectors, search)
    ok = np.array(
        [index for index, result in enumerate(searched) if result.status == "ok"], dtype=np.int64
    )
    if not len(ok):
        return None
    scales = np.array([searched[index].scale for index in ok])
    low, high = (
        np.maximum(loss_at(ok, scales * factor) - unsteered, 1e-9) for factor in (0.8, 1.25)
    )
    power = float(np.median(np.log(high / low))) / math.log(1.25 / 0.8)
    share = 1.0
    if part:
        rises = np.array([searched[index].loss for index in ok]) - unsteered
        share = float(np.median((part.loss_at(ok, scales) - part.unsteered) / rises))
    return Start(float(np.median(scales)), min(max(power, 0.5), 8.0), min(max(share, 0.1), 10.0))


def _measure(loss_at: LossAt, wanted: dict[int, float]) -> Sequence[float]:
    if not wanted:
        return []
    losses = loss_at(np.array(list(wanted), dtype=np.int64), np.array(list(wanted.values())))
    return np.where(np.isfinite(losses), losses, math.inf).tolist()


def _search(settings: Scale, unsteered: float, maximum: float, start: Start) -> Search:
    if settings.rule == "fixed":
        return fixed(settings.value, maximum)
    target = _target(settings, unsteered)
    if unsteered >= target:
        return _stay_at_zero(unsteered)
    if settings.search == "scan":
        return scan(target, unsteered, maximum, settings.steps)
    return bisect(target, unsteered, maximum, settings.steps, start)


def _target(settings: Scale, unsteered: float) -> float:
    """The loss that the rule aims at."""
    return settings.value + (unsteered if settings.rule == "loss_increase" else 0.0)


def fixed(scale: float, maximum: float) -> Search:
    """One scale for all vectors, lowered to the maximum."""
    applied = min(scale, maximum)
    loss = yield applied
    return VectorScale(applied, loss, "ok" if applied == scale else "clamped")


def _stay_at_zero(unsteered: float) -> Search:
    return VectorScale(0.0, unsteered, "above_at_zero")
    yield  # makes this a search


def bisect(target: float, unsteered: float, maximum: float, steps: int, start: Start) -> Search:
    """Bracket the target, then close the bracket.

    The loss rises about as a power of the scale, so the next point is where a power law through
    both ends meets the target; every third one is the middle, which closes the bracket whatever the
    curve. The search ends when the loss is within `TOLERANCE` of the wanted rise, or the bracket is
    as narrow as ``steps`` halvings of the range make it.

    Args:
        target: loss wanted, above ``unsteered``.
        unsteered: loss at scale 0.
        maximum: largest scale.
        steps: halvings.
        start: first scale tried, and the power law expected as long as only one point is known.
    """
    low, low_loss = 0.0, unsteered
    scale = min(start.scale, maximum)
    loss = yield scale
    while loss < target and not _close(loss, target, unsteered):
        if scale >= maximum:
            return VectorScale(scale, loss, "never_reached")
        growth = _power_law((low, low_loss), (scale, loss), target, unsteered, start.power) / scale
        # a start below a near target is left by a small step; a curve that keeps falling short, by
        # larger ones
        growth = min(max(growth, 1.02 if low == 0 else 1.25), 4.0)
        low, low_loss = scale, loss
        scale = min(maximum, scale * growth)
        loss = yield scale
    high, high_loss = scale, loss
    for step in range(1, 3 * steps):
        if _close(loss, target, unsteered) or high - low <= maximum * 2.0**-steps:
            break
        inner = (low + high) / 2
        if step % 3:
            margin = 0.05 * (high - low)
            crossing = _power_law(
                (low, low_loss), (high, high_loss), target, unsteered, start.power
            )
            inner = min(max(crossing, low + margin), high - margin)
        loss = yield inner
        if loss < target:
            low, low_loss = inner, loss
        else:
            high, high_loss = inner, loss
    ends = [(abs(high_loss - target), high, high_loss), (abs(low_loss - target), low, low_loss)]
    _, scale, loss = min(ends)
    return VectorScale(scale, loss, "ok")


def scan(target: float, unsteered: float, maximum: float, steps: int) -> Search:
    """The published search: equal steps until the loss exceeds the target, then a line between the
    last two points.

    Where the published code would extrapolate, this stops at the maximum.
    """
    low, low_loss = 0.0, unsteered
    for step in range(1, steps + 1):
        high = maximum * step / steps
        high_loss = yield high
        if high_loss > target:
            share = (
                (target - low_loss) / (high_loss - low_loss) if math.isfinite(high_loss) else 0.5
            )
            scale = low + share * (high - low)
            loss = yield scale
            return VectorScale(scale, loss, "ok")
        low, low_loss = high, high_loss
    return VectorScale(low, low_loss, "never_reached")


def _close(loss: float, target: float, unsteered: float) -> bool:
    return abs(loss - target) <= TOLERANCE * (target - unsteered)


def _power_law(
    low: tuple[float, float],
    high: tuple[float, float],
    target: float,
    unsteered: float,
    power: float,
) -> float:
    """Where ``rise = c * scale ** p`` through both points meets the target; ``p`` is ``power`` if
    the lower is at 0."""
    rise_low, rise_high, wanted = low[1] - unsteered, high[1] - unsteered, target - unsteered
    if rise_high <= 0:
        return math.inf
    if math.isinf(rise_high):
        return 0.0
    if low[0] > 0 and 0 < rise_low < rise_high:
        power = math.log(rise_high / rise_low) / math.log(high[0] / low[0])
    return high[0] * (wanted / rise_high) ** (1 / power)
