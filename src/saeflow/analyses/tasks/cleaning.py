"""Task vectors as few latents: codes that are optimised for the answers through the layers above.

The codes begin as what the SAE's encoder makes of the vector. What is optimised is how much of each
latent stays, in units of what it had: a latent whose share falls to nothing is off, and stays so.
An SAE with a threshold (JumpReLU, gated, TopK) keeps no value between nothing and the threshold, so
there a share counts what lies above it, and what is paid for is how many latents there are, with a
gradient straight through the count; with ReLU it is the sum of the codes. Decoder rows have length
1. (Kharlapenko et al. 2025, arXiv 2504.13756, whose code pays for the sum with every SAE, adds the
decoder's bias, and is given one penalty)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.analyses.tasks.answering import Answers, Frozen
from saeflow.analyses.tasks.shares import mean_loss, standard_error
from saeflow.errors import SaeflowError
from saeflow.models.running import not_finite

if TYPE_CHECKING:
    from saeflow.analyses.tasks.prompts import Question
    from saeflow.analyses.tasks.settings import Cleaning
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE


class Start(NamedTuple):
    """What the encoder makes of a vector.

    Attributes:
        latents: that are active.
        floor: the value at which each turns off.
        excess: how far each lies above it.
        counts: whether latents are paid for by number, else by value.
    """

    latents: Int[Tensor, " n"]
    floor: Float[Tensor, " n"]
    excess: Float[Tensor, " n"]
    counts: bool

    def values(self, shares: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The codes; off where a share is not above 0."""
        return torch.where(shares > 0, self.floor + self.excess * shares, 0.0)

    def price(self, shares: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """What shares cost; 1 in the beginning."""
        kept = shares.clamp_min(0)
        if self.counts:  # its value is the share of latents that are on, its slope that of `kept`
            number = (shares > 0).float().mean()
            return kept.mean() + (number - kept.mean()).detach()
        return (self.excess * kept).sum() / self.excess.sum()


class Point(NamedTuple):
    """Codes on the path.

    Attributes:
        penalty: at which they were optimised.
        latents, values: those that are on.
        vector: what they add, without the decoder's bias.
        validation: answers to the pairs to choose by.
    """

    penalty: float
    latents: Int[Tensor, " n"]
    values: Float[Tensor, " n"]
    vector: Float[Tensor, " d_model"]
    validation: Answers


class Path(NamedTuple):
    """Codes by penalty, from the lowest.

    Attributes:
        points: of the path.
        chosen: which of them has the fewest latents of those whose validation loss is within one
            standard error of the lowest.
    """

    points: list[Point]
    chosen: int


def start_of(sae: SAE, vector: Float[Tensor, " d_model"]) -> Start:
    """Active latents of a vector, and where each turns off.

    Raises:
        SaeflowError: none is active, or the SAE's codes are of activations that it normalises.
    """
    if sae.per_token:
        raise SaeflowError(
            f"tasks.cleaning: the SAE normalises each token's activation ({sae.per_token}), so "
            "that its codes alone are no vector of the residual stream; name another"
        )
    codes = sae.encode(vector[None])[0].float()
    latents = codes.nonzero()[:, 0]
    if not len(latents):
        raise SaeflowError(
            "tasks.cleaning: no latent of the SAE fires at the vector of this task, so that there "
            "is nothing to clean; name other SAEs in tasks.cleaning.saes, or leave the task out"
        )
    floor = _floor(sae, vector, codes)[latents]
    counts = sae.architecture != "standard"
    # a code on its floor would have nothing to lose
    excess = (codes[latents] - floor).clamp_min(1e-3 * float(codes.max()))
    return Start(latents, floor, excess, counts)


def _floor(
    sae: SAE, vector: Float[Tensor, " d_model"], codes: Float[Tensor, " d_sae"]
) -> Float[Tensor, " d_sae"]:
    """The value of every latent at which it turns off; of TopK the largest among those that were
    not kept."""
    none = torch.zeros_like(codes)
    if sae.threshold is not None:
        return sae.threshold.float().clamp_min(0)
    if sae.architecture == "topk":
        every = torch.arange(sae.d_sae, device=codes.device)
        reach = sae.reach(vector[None], every)[0].float()
        last = codes[codes > 0].min()
        return none + (reach[codes == 0].max() + last).clamp_min(0) if (codes == 0).any() else none
    if sae.r_mag is not None and sae.b_gate is not None and sae.b_mag is not None:
        return (sae.b_mag - sae.b_gate * sae.r_mag.exp()).float().clamp_min(0)
    return none


def clean(
    lm: LanguageModel,
    sae: SAE,
    start: Start,
    layer: int,
    train: Sequence[Question],
    validation: Frozen,
    asked: Cleaning,
    generator: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Optimise codes along the path of penalties.

    The layers below run once. The gradient of the mean loss flows through the layers above to the
    codes, and to nothing else.

    Args:
        lm: the model.
        sae: whose latents.
        start: codes of the vector.
        layer: behind which they are added.
        train: prompts without examples that codes are optimised on.
        validation: those that penalties are chosen by.
        asked: the path and the optimiser.
        generator: of the order of prompts.
        progress: called with (steps done, all of them).
    """
    order = generator.permutation(len(train))
    parts = np.array_split(order, max(1, round(len(train) / asked.batch)))
    batches = [Frozen(lm, [train[place] for place in part], layer) for part in parts]
    rows = sae.W_dec[start.latents].float()
    shares = torch.ones_like(start.excess)
    points: list[Point] = []
    for number, penalty in enumerate(asked.penalties):
        shares = shares.detach().requires_grad_()
        optimiser = torch.optim.Adam([shares], lr=asked.learning_rate)
        for step in range(asked.steps):
            if step % len(batches) == 0:
                turn = generator.permutation(len(batches))
            batch = batches[turn[step % len(batches)]]
            vector = start.values(shares) @ rows
            goal = batch.losses(vector).mean() + penalty * start.price(shares)
            (shares.grad,) = torch.autograd.grad(goal, shares)
            optimiser.step()
            if not shares.isfinite().all():  # which no latent would be left of
                raise not_finite(lm, "tasks.cleaning: the gradient")
            if progress:
                progress(number * asked.steps + step + 1, len(asked.penalties) * asked.steps)
        points.append(_point(start, shares.detach(), rows, penalty, validation))
        if len(points[-1].latents) <= 1:
            break
    return Path(points, _chosen(points))


def _point(
    start: Start,
    shares: Float[Tensor, " n"],
    rows: Float[Tensor, "n d_model"],
    penalty: float,
    validation: Frozen,
) -> Point:
    values, on = start.values(shares), shares > 0
    vector = values @ rows
    answers = validation.with_added(vector)
    return Point(penalty, start.latents[on].cpu(), values[on].cpu(), vector.cpu(), answers)


def _chosen(points: Sequence[Point]) -> int:
    """Fewest latents within one standard error of the lowest validation loss."""
    best = min(points, key=lambda point: mean_loss(point.validation)).validation
    bound = mean_loss(best) + standard_error(best)
    able = [place for place, point in enumerate(points) if mean_loss(point.validation) <= bound]
    return min(
        able, key=lambda place: (len(points[place].latents), mean_loss(points[place].validation))
    )
