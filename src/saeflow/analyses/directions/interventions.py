"""What an edit along a direction does to answers: whether they show the behaviour, how far the
model moves, and what it loses on other text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from saeflow.analyses.directions.activations import (
    batches,
    divergence,
    first_logits,
    odds,
)
from saeflow.analyses.directions.settings import Behaviour, EditMeasures
from saeflow.decoding.answers import greedy_answers
from saeflow.decoding.edits import ablated, added
from saeflow.judging.phrases import says
from saeflow.models.chat import continuation_text
from saeflow.models.evaluation import block_losses
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import final_states, padded, unembed

ANSWERS = {
    "edit": pl.String,
    "kind": pl.String,
    "control": pl.Int32,
    "scale": pl.Float64,
    "label": pl.String,
    "prompt": pl.Int32,
    "group": pl.Int64,
    "phrases": pl.Float64,
    "log_odds": pl.Float64,
    "kl_first": pl.Float64,
    "kl_token": pl.Float64,
    "tokens": pl.Int32,
    "first_token": pl.String,
    "text": pl.String,
}
LOSSES = {
    "edit": pl.String,
    "kind": pl.String,
    "control": pl.Int32,
    "scale": pl.Float64,
    "block": pl.Int32,
    "loss": pl.Float64,
}


class Intervention(NamedTuple):
    """An edit of the residual stream along one direction."""

    edit: Literal["none", "ablate", "add"]
    vector: Float[Tensor, " d_model"]
    """Unit norm."""
    layer: int
    """After which it is added; ablation is at every write site."""
    size: float
    """How much of it is added, in units of the residual stream."""

    def on(self, lm: LanguageModel) -> Callable[[], AbstractContextManager[None]]:
        """What attaches it to a model, as often as it is called."""
        if self.edit == "none":
            return nullcontext
        if self.edit == "ablate":
            return partial(ablated, lm, self.vector)
        return partial(added, lm, f"blocks.{self.layer}.hook_resid_post", self.vector, self.size)


class Trial(NamedTuple):
    """An intervention and what it is called in tables."""

    intervention: Intervention
    kind: str
    """``direction``; of controls ``random``, ``shuffled``, ``candidate``."""
    control: int
    """Number among controls of its kind."""
    scale: float
    """In units of the gap; 0 for ablation."""

    @property
    def columns(self) -> dict[str, str | int | float]:
        """What tables say of it."""
        return {
            "edit": self.intervention.edit,
            "kind": self.kind,
            "control": self.control,
            "scale": self.scale,
        }


class TestPrompts(NamedTuple):
    """Prompts of some classes that answers are measured on."""

    rows: list[list[int]]
    labels: list[str]
    numbers: list[int]
    """In the study's prompts."""
    groups: list[int]


class Measured(NamedTuple):
    """Tables of `ANSWERS` and `LOSSES`."""

    answers: pl.DataFrame
    losses: pl.DataFrame


def measure(
    lm: LanguageModel,
    trials: Sequence[Trial],
    prompts: TestPrompts,
    off: str,
    blocks: Int[np.ndarray, "blocks pos"],
    behaviour: Behaviour,
    tokens: Sequence[int],
    settings: EditMeasures,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Try every edit on the prompts and on the text.

    Args:
        lm: the model.
        trials: the edits; the first edits nothing, and the others are compared with it.
        prompts: what is asked.
        off: the class of prompts on which divergences are measured token by token.
        blocks: of text.
        behaviour: its phrases.
        tokens: with which it begins.
        settings: how many tokens, and whether texts are kept.
        progress: called with (edits tried, edits).

    Returns:
        A row per trial and prompt, with the KL of the first token and, for `off` prompts, the mean
        KL over the tokens of the unedited answer; a row per trial and block of text.
    """
    usual = first_logits(lm, prompts.rows)
    unedited = greedy_answers(lm, prompts.rows, settings.new_tokens)
    harmless = [n for n, label in enumerate(prompts.labels) if label == off]
    answers: list[Mapping[str, object]] = []
    losses: list[Mapping[str, object]] = []
    for number, trial in enumerate(trials):
        edit = trial.intervention.on(lm)
        plain = trial.intervention.edit == "none"
        begun = usual if plain else first_logits(lm, prompts.rows, edit)
        with edit():
            said = unedited if plain else greedy_answers(lm, prompts.rows, settings.new_tokens)
            of_blocks = block_losses(lm, blocks).mean(axis=1)
        kl_token = np.full(len(prompts.rows), np.nan)
        kl_token[harmless] = _along_answers(
            lm, [prompts.rows[n] for n in harmless], [unedited[n] for n in harmless], edit
        )
        answers += _rows(
            lm,
            trial,
            prompts,
            said,
            behaviour,
            settings,
            kl_token,
            odds(begun, tokens),
            divergence(usual, begun),
        )
        losses += [
            trial.columns | {"block": block, "loss": loss} for block, loss in enumerate(of_blocks)
        ]
        if progress:
            progress(number + 1, len(trials))
    return Measured(
        pl.DataFrame(answers, schema=ANSWERS).with_columns(pl.col("kl_token").fill_nan(None)),
        pl.DataFrame(losses, schema=LOSSES),
    )


def _rows(
    lm: LanguageModel,
    trial: Trial,
    prompts: TestPrompts,
    said: Sequence[list[int]],
    behaviour: Behaviour,
    settings: EditMeasures,
    kl_token: Float64[np.ndarray, " prompts"],
    log_odds: Float64[np.ndarray, " prompts"],
    kl_first: Float64[np.ndarray, " prompts"],
) -> Iterator[Mapping[str, object]]:
    for number, (row, answer) in enumerate(zip(prompts.rows, said, strict=True)):
        text = continuation_text(lm.tokenizer, row, answer)
        yield trial.columns | {
            "label": prompts.labels[number],
            "prompt": prompts.numbers[number],
            "group": prompts.groups[number],
            "phrases": float(says(text, behaviour.phrases, behaviour.where)),
            "log_odds": log_odds[number],
            "kl_first": kl_first[number],
            "kl_token": kl_token[number],
            "tokens": len(answer),
            "first_token": lm.tokenizer.decode(answer[:1]),
            "text": text if settings.texts else None,
        }


@torch.no_grad()
def _along_answers(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    edit: Callable[[], AbstractContextManager[None]],
) -> Float64[np.ndarray, " prompts"]:
    """The mean KL of an edited model from the unedited one over the tokens of answers, the place
    at which they end included."""
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    kl = np.empty(len(rows))
    for chunk in batches(rows):
        tokens = padded(lm, [rows[number] for number in chunk])
        usual = final_states(lm, tokens)
        with edit():
            moved = final_states(lm, tokens)
            # A soft cap or a head of the model's own is what both are read through.
        for place, number in enumerate(chunk):
            span = slice(len(prompts[number]) - 1, len(rows[number]))
            pair = (unembed(lm, states[place, span]).float().cpu() for states in (usual, moved))
            kl[number] = divergence(*pair).mean()
    return kl
