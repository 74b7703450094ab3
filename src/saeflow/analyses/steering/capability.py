"""What a vector costs the model where no behaviour is asked for: its loss on held-out text, and
how well it tells right answers from wrong ones.

An answer is as likely as the model says that its text is behind the question; no letters of
options are asked for, which small models cannot name. All texts run up to the hook once; each
vector and scale costs the layers above it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from saeflow.analyses.steering.io import SteeringVector
from saeflow.analyses.steering.schemas import CAPABILITY_SCHEMA
from saeflow.config.questions import Question
from saeflow.decoding.completion import Completion
from saeflow.errors import SaeflowError
from saeflow.judging.losses import continuation_tokens
from saeflow.models.hooks import parse_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import (
    not_finite,
    padded,
    position_chunks,
    run_prefix,
    suffix_states,
    unembed,
)

BATCH = 16
"""Texts per pass."""


class Text(NamedTuple):
    """Tokens whose loss is measured from one of them on."""

    tokens: list[int]
    first: int
    """The first that counts; at least 1."""


class Exam(NamedTuple):
    """What is measured."""

    blocks: list[Text]
    """Held-out text."""
    answers: list[list[Text]]
    """Of every question: the right one, then the others."""


class _Batch(NamedTuple):
    """Texts of about equal length, run up to the hook."""

    numbers: list[int]
    texts: list[Text]
    resid: Float[Tensor, "texts pos d_model"]


def exam(
    lm: LanguageModel, blocks: Int[np.ndarray, "blocks pos"], questions: Sequence[Question]
) -> Exam:
    """Held-out blocks and questions as the model reads them.

    Raises:
        SaeflowError: a question is longer than the model's context.
    """
    return Exam(
        [Text(block, 1) for block in blocks.tolist()],
        [
            [_answered(lm, each.question, answer) for answer in (each.answer, *each.others)]
            for each in questions
        ],
    )


def behind(
    lm: LanguageModel,
    words: str,
    blocks: Int[np.ndarray, "blocks pos"],
    questions: Sequence[Question],
) -> Exam:
    """The same texts and questions with words in front, whose own tokens do not count.

    Raises:
        SaeflowError: they do not fit the model's context with a block or a question.
    """
    front = lm.tokenize(words)
    texts = [Text([*front, *block[1:]], len(front)) for block in blocks.tolist()]
    if texts and (length := len(texts[0].tokens)) > lm.context:
        raise SaeflowError(
            f"capability: a block of text behind the words of a method has {length} tokens, and "
            f"the model's context {lm.context}; lower steering.prompting.examples, or set "
            "steering.capability.tokens: 0"
        )
    return Exam(
        texts,
        [
            [_answered(lm, each.question, answer, words) for answer in (each.answer, *each.others)]
            for each in questions
        ],
    )


def _texts(measured_on: Exam) -> list[Text]:
    return [*measured_on.blocks, *(text for each in measured_on.answers for text in each)]


def _answered(lm: LanguageModel, question: str, answer: str, words: str = "") -> Text:
    prompt = f"{words}Question: {question}\nAnswer:"
    text = Text(*continuation_tokens(lm, Completion(prompt, f"{prompt} {answer}")))
    if len(text.tokens) <= text.first:
        raise SaeflowError(
            f"capability: the question {question[:60]!r} is longer than the model's context, "
            f"{lm.context} tokens; shorten it"
        )
    return text


@torch.no_grad()
def capabilities(
    lm: LanguageModel,
    measured_on: Exam,
    vectors: Sequence[SteeringVector],
    scales: Mapping[str, Sequence[float]],
    in_words: Mapping[str, Exam] = MappingProxyType({}),
    among: Collection[str] | None = None,
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[pl.DataFrame]:
    """Measure every vector at every scale; the unsteered model is measured once.

    Args:
        lm: the model.
        measured_on: texts and questions.
        vectors: added at all positions; one per method, all at one hook.
        scales: absolute, of each method.
        in_words: the same behind the words of each method that says some; see `behind`.
        among: the methods that are measured; None is all.
        batch: texts per pass.
        progress: called with (vectors and scales done, all of them).

    Yields:
        A table per method, those with vectors first, with the columns of `CAPABILITY_SCHEMA`:
        ``text_loss`` of every block (``item``) in nats per token; of every question
        ``choice_correct`` (1 where the right answer is likelier than each other, else 0) and
        ``choice_log_odds`` (log of its probability over that of all others).

    Raises:
        SaeflowError: a vector is for another model, or a loss is no number.
    """
    layer = parse_hook(vectors[0].hook).layer
    run_to = _run_to(lm, _texts(measured_on), layer, batch)
    still = torch.zeros(lm.d_model, device=lm.device)
    unsteered = _values(measured_on, _losses(lm, run_to, layer, still))
    asked = [each for each in vectors if among is None or each.method in among]
    done, total = 0, sum(len(scales[each.method]) for each in asked)
    for steered in asked:
        vector = steered.of_width(lm.d_model).to(lm.device)
        points: list[tuple[float | None, dict[str, list[float]]]] = []
        for scale in scales[steered.method]:
            values = unsteered
            if scale != 0:
                values = _values(measured_on, _losses(lm, run_to, layer, scale * vector))
            if not all(map(math.isfinite, values["text_loss"] + values["choice_log_odds"])):
                raise not_finite(lm, "capability: a loss", scale)
            points.append((scale, values))
            done += 1
            if progress:
                progress(done, total)
        yield _table(steered.goal, steered.method, points)
    for method, own in in_words.items():
        if among is None or method in among:
            behind_words = _losses(lm, _run_to(lm, _texts(own), 0, batch), 0, still)
            behind = _values(own, behind_words)
            yield _table(vectors[0].goal, method, [(0.0, unsteered), (None, behind)])


def _table(
    goal: str, method: str, points: Sequence[tuple[float | None, dict[str, list[float]]]]
) -> pl.DataFrame:
    """What was measured at each scale."""
    rows = [
        (goal, method, scale, index, measure, item, value)
        for index, (scale, values) in enumerate(points)
        for measure, of_items in values.items()
        for item, value in enumerate(of_items)
    ]
    return pl.DataFrame(rows, schema=CAPABILITY_SCHEMA, orient="row")


def _run_to(lm: LanguageModel, texts: Sequence[Text], layer: int, batch: int) -> list[_Batch]:
    """Equal lengths together: little padding."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number].tokens))
    batches = []
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        own = [texts[number] for number in numbers]
        tokens = padded(lm, [text.tokens for text in own])
        batches.append(_Batch(numbers, own, run_prefix(lm, tokens, layer)))
    return batches


def _losses(
    lm: LanguageModel, batches: Sequence[_Batch], layer: int, addition: Float[Tensor, " d_model"]
) -> list[Float[Tensor, " tokens"]]:
    """The losses of every text's tokens that count, in nats, by the text's number."""
    losses: dict[int, Tensor] = {}
    for numbers, texts, resid in batches:
        states = suffix_states(lm, resid + addition.to(resid), layer)
        # at i the token i + 1 is told
        counted = [slice(text.first - 1, len(text.tokens) - 1) for text in texts]
        rows = torch.cat([states[row, part] for row, part in enumerate(counted)])
        targets = torch.tensor(
            [token for text in texts for token in text.tokens[text.first :]], device=lm.device
        )
        parts = [
            cross_entropy(unembed(lm, rows[part]).float(), targets[part], reduction="none")
            for part in position_chunks(lm, len(rows))
        ]
        lengths = [part.stop - part.start for part in counted]
        of_texts = torch.split(torch.cat(parts).double().cpu(), lengths)
        losses |= zip(numbers, of_texts, strict=True)
    return [losses[number] for number in range(len(losses))]


def _values(
    measured_on: Exam, losses: Sequence[Float[Tensor, " tokens"]]
) -> dict[str, list[float]]:
    count = len(measured_on.blocks)
    answers = iter(losses[count:])
    values: dict[str, list[float]] = {
        "text_loss": [float(own.mean()) for own in losses[:count]],
        "choice_correct": [],
        "choice_log_odds": [],
    }
    for each in measured_on.answers:
        right, *others = (-next(answers).sum() for _ in each)
        wrong = torch.stack(others)
        values["choice_correct"].append(float(right > wrong.max()))
        values["choice_log_odds"].append(float(right - wrong.logsumexp(0)))
    return values
