"""Drawing the next token by inverse CDF, one uniform number per row."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.config.sections import Sampling

_BLOCK = 128  # tokens per partial sum of the cumulative distribution


def sample(
    logits: Float[Tensor, "rows d_vocab"], sampling: Sampling, uniform: Float[Tensor, " rows"]
) -> Int[Tensor, " rows"]:
    """Draw one token per row; equal logits and equal numbers give equal tokens.

    Args:
        logits: in any floating dtype; the arithmetic is float32, its sums float64.
        sampling: temperature, then ``top_k``, then ``top_p`` of what it left.
        uniform: float64 in [0, 1).
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits.float()
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k is None and sampling.top_p is None:
        return inverse_cdf(logits.softmax(-1), uniform)
    candidates, tokens = _candidates(logits, sampling)
    return tokens.gather(-1, inverse_cdf(candidates, uniform)[:, None])[:, 0]


def _candidates(
    logits: Float[Tensor, "rows d_vocab"], sampling: Sampling
) -> tuple[Float[Tensor, "rows kept"], Int[Tensor, "rows kept"]]:
    """Weights of the tokens that may be drawn, and their ids in increasing order.

    The order by id, not by probability, keeps rows with almost equal distributions on the same
    token for the same uniform number.
    """
    d_vocab = logits.shape[-1]
    values, tokens = logits.topk(min(sampling.top_k or d_vocab, d_vocab), dim=-1)
    weights = (values - values[:, :1]).exp_()
    if sampling.top_p is not None:
        share = weights.double() / weights.sum(-1, keepdim=True, dtype=torch.float64)
        before = share.cumsum(-1) - share
        weights = weights * (before < sampling.top_p)
    tokens, order = tokens.sort(dim=-1)
    return weights.gather(-1, order), tokens


def inverse_cdf(
    weights: Float[Tensor, "rows n"], uniform: Float[Tensor, " rows"]
) -> Int[Tensor, " rows"]:
    """The first index whose cumulative weight exceeds ``uniform`` times the total; an index of
    weight 0 is never drawn.

    The cumulative sum runs over sums of blocks and then inside one block: a tenth of the time of a
    full one.

    Args:
        weights: not negative, at least one positive per row.
        uniform: float64 in [0, 1).
    """
    n = weights.shape[1]
    blocks, whole = n // _BLOCK, n - n % _BLOCK
    sums = [
        weights[:, :whole].view(len(weights), blocks, _BLOCK).sum(-1),
        weights[:, whole:].sum(-1, keepdim=True),
    ]
    upto = torch.cat(sums, 1).double().cumsum(-1)
    target = uniform * upto[:, -1]
    block = _first_above(upto, target)
    target -= torch.nn.functional.pad(upto, (1, 0)).gather(-1, block[:, None])[:, 0]
    columns = block[:, None] * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(1, columns.clamp_max(n - 1)).double() * (columns < n)
    return block * _BLOCK + _first_above(inside.cumsum(-1), target)


def _first_above(
    upto: Float[Tensor, "rows n"], target: Float[Tensor, " rows"]
) -> Int[Tensor, " rows"]:
    # Rounding may leave a target at or above the last sum: then the last index of positive weight
    # is meant.
    last = (upto < upto[:, -1:]).sum(-1)
    return torch.minimum((upto <= target[:, None]).sum(-1), last)
