"""Where texts end: rows that have said what they had to say, and rows whose logits have ceased to
be numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.models.running import not_finite

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

LOOK = 16  # tokens from one look at a GPU's rows to the next; each look waits for the GPU


def lengths(tokens: Int[Tensor, "*rows new_tokens"], ends: tuple[int, ...]) -> Int[Tensor, "*rows"]:
    """How many of the drawn tokens come before the first that ends a text; all of them where none
    does.

    Args:
        tokens: from `saeflow.decoding.generation.generate`.
        ends: token ids, such as `LanguageModel.end_ids`.
    """
    ended = torch.isin(tokens, torch.tensor(ends, dtype=tokens.dtype, device=tokens.device))
    return (~ended).int().cumprod(-1).sum(-1)


class Ending:
    """Follows the rows of one batch, token by token."""

    def __init__(self, lm: LanguageModel, rows: int) -> None:
        self.lm = lm
        self.ends = torch.tensor(lm.end_ids, dtype=torch.long, device=lm.device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=lm.device)
        self.last = torch.zeros(rows, dtype=torch.long, device=lm.device)
        self.peaks = torch.zeros(rows, dtype=torch.float64, device=lm.device)

    def see(self, logits: Float[Tensor, "rows d_vocab"]) -> None:
        """Note logits that are not numbers, in rows that still go on; asks nothing of a GPU until
        `check`."""
        self.peaks += logits.amax(-1).double().masked_fill(self.ended, 0.0)

    def of(self, drawn: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """The tokens drawn, in rows that have ended their last one again."""
        if not len(self.ends):
            return drawn
        self.last = torch.where(self.ended, self.last, drawn)
        self.ended = self.ended | torch.isin(self.last, self.ends)
        return self.last

    def everywhere(self, number: int) -> bool:
        """Whether no row goes on, as far as is known after a number of tokens."""
        if not len(self.ends) or (self.ended.is_cuda and number % LOOK):
            return False
        return bool(self.ended.all())

    def check(self, scales: Float[Tensor, " rows"] | None) -> None:
        """Refuse a batch in which a row's logits were NaN or infinite before it ended: nothing can
        be drawn from them.

        Args:
            scales: of the rows' edits; None is no steering.

        Raises:
            SaeflowError: with the smallest scale at which it happens.
        """
        wrong = ~torch.isfinite(self.peaks)
        if not wrong.any():
            return
        smallest = 0.0 if scales is None else float(scales[wrong][scales[wrong].abs().argmin()])
        raise not_finite(self.lm, "steering: a logit", smallest)
