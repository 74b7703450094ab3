"""What a model says behind separators, when something is added there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from saeflow.models.running import (
    final_states,
    not_finite,
    padded,
    run_prefix,
    suffix_states,
    unembed,
)

if TYPE_CHECKING:
    from saeflow.analyses.tasks.prompts import Question
    from saeflow.models.language_model import LanguageModel

_TOKENS_AT_ONCE = 2_048


class Answers(NamedTuple):
    """Of each prompt; on the CPU.

    Attributes:
        loss: sum of the surprisals of the tokens that count, nats.
        right: whether each of them is the likeliest.
    """

    loss: Float[Tensor, " prompts"]
    right: Bool[Tensor, " prompts"]


class Rows(NamedTuple):
    """Prompts with their answers behind them, as one batch.

    Attributes:
        tokens: padded on the right.
        places: of each prompt's separator.
        row, position, target: of every token that counts: the prompt it is of, where it is
            predicted, and which it is.
    """

    tokens: Int[Tensor, "rows pos"]
    places: Int[Tensor, " rows"]
    row: Int[Tensor, " scored"]
    position: Int[Tensor, " scored"]
    target: Int[Tensor, " scored"]


def rows_of(lm: LanguageModel, questions: Sequence[Question]) -> Rows:
    """A batch of prompts; what is read of one does not depend on the others."""
    tokens = padded(lm, [[*each.tokens, *each.answer[:-1]] for each in questions])
    scored = [
        (number, len(each.tokens) - 1 + place, token)
        for number, each in enumerate(questions)
        for place, token in enumerate(each.answer)
    ]
    row, position, target = torch.tensor(scored, device=lm.device).T
    places = torch.tensor([len(each.tokens) - 1 for each in questions], device=lm.device)
    return Rows(tokens, places, row, position, target)


def answers_of(
    lm: LanguageModel, states: Float[Tensor, "rows pos d_model"], rows: Rows
) -> tuple[Float[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """Losses and whether answers are right, from final states; losses with a gradient where the
    states have one."""
    logits = unembed(lm, states[rows.row, rows.position]).float()
    surprisals = cross_entropy(logits, rows.target, reduction="none")
    n = len(rows.tokens)
    losses = surprisals.new_zeros(n).index_add(0, rows.row, surprisals)
    wrong = (logits.argmax(-1) != rows.target).long()
    return losses, wrong.new_zeros(n).index_add(0, rows.row, wrong) == 0


def answer(lm: LanguageModel, questions: Sequence[Question]) -> Answers:
    """What the model says by itself."""
    batches = _batches(lm, questions)
    return _joined(lm, (answers_of(lm, final_states(lm, rows.tokens), rows) for rows in batches))


class Frozen:
    """Prompts whose residual stream after a layer is known, so that only the layers above run.

    Args:
        lm: the model.
        questions: prompts without examples.
        layer: behind which vectors are added.
    """

    def __init__(self, lm: LanguageModel, questions: Sequence[Question], layer: int) -> None:
        self.lm, self.layer = lm, layer
        self._batches = [
            (rows, run_prefix(lm, rows.tokens, layer)) for rows in _batches(lm, questions)
        ]

    @torch.no_grad()
    def with_added(self, vector: Float[Tensor, " d_model"]) -> Answers:
        """What the model says when a vector is added at every prompt's separator."""
        parts = (self._run(rows, resid, vector) for rows, resid in self._batches)
        return _joined(self.lm, parts, ", with a vector added,")

    def losses(self, vector: Float[Tensor, " d_model"]) -> Float[Tensor, " prompts"]:
        """Losses with that vector, through which a gradient flows back to it, and to nothing
        else."""
        return torch.cat([self._run(rows, resid, vector)[0] for rows, resid in self._batches])

    def _run(
        self, rows: Rows, resid: Float[Tensor, "rows pos d_model"], vector: Tensor
    ) -> tuple[Tensor, Tensor]:
        at = torch.zeros(resid.shape[:2], dtype=resid.dtype, device=resid.device)
        at[torch.arange(len(at), device=at.device), rows.places] = 1
        edited = resid + at[:, :, None] * vector.to(resid)
        return answers_of(self.lm, suffix_states(self.lm, edited, self.layer), rows)


def _batches(lm: LanguageModel, questions: Sequence[Question]) -> list[Rows]:
    """The prompts in batches of bounded size, in their order."""
    longest = max(len(each.tokens) + len(each.answer) for each in questions)
    most = max(1, _TOKENS_AT_ONCE // longest)
    return [
        rows_of(lm, questions[first : first + most]) for first in range(0, len(questions), most)
    ]


def _joined(lm: LanguageModel, parts: Iterable[tuple[Tensor, Tensor]], added: str = "") -> Answers:
    losses, right = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    if not losses.isfinite().all():
        raise not_finite(lm, f"tasks: the loss{added}")
    return Answers(losses, right)
