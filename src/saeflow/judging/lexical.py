"""The lexical judge: a goal's word list for the behaviour, the unsteered model's own loss for the
coherence.

It needs no other model and no network, costs one forward pass, and gives the same score to the same
text always. It is a measure, not a reader: it sees neither negation nor meaning, and takes the
unusual for the incoherent.

**Behaviour** is the share of the continuation's words that the list names, divided by
``saturation``, at most 1.

**Coherence** is ``fluency × variety``.

- Fluency maps the loss of the continuation, given the prompt, linearly: 1 at and below the median
  loss of unsteered completions, 0 at and above the median loss of the same completions with their
  words in random order. Both ends are measured with the judged model on its own text, so the scale
  needs no constant of ours and means the same for a model of any size: 1 is "as likely as what the
  model writes by itself", 0 is "no better than the right words in any order". (The logarithm of the
  vocabulary, the loss of uniform noise, is no such end: a word salad of frequent words lies far
  below it.)
- Variety guards against loops, which the loss rewards because every repeated word is foreseen. It
  is the share of distinct bigrams of words and punctuation, divided by its median in unsteered
  completions, at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from saeflow.config.goal import Goal
from saeflow.decoding.completion import Completion
from saeflow.errors import SaeflowError
from saeflow.judging.verdicts import Question, Verdict
from saeflow.judging.words import distinct_bigram_share, folded, matched_share, units, word_pattern
from saeflow.seeds import numpy_generator

NOT_ITS_PROMPT = "the text does not open with its prompt"
NO_LOSS = "the loss is not a number"
NO_SCALE = "the unsteered model finds its words no less likely in random order"


def judge_lexical(completions: Sequence[Completion], question: Question) -> list[Verdict]:
    """Score continuations by words and by loss; a continuation without a word or mark scores 0.

    Raises:
        SaeflowError: the goal has no words; for the coherence, the losses or the unsteered
            completions are missing.
    """
    if question.criterion == "coherence":
        return _coherence(completions, question)
    if not question.goal.words:
        raise SaeflowError(
            f"goal '{question.goal.title}': has no words; list them in its file, or use another "
            "judge"
        )
    pattern, saturation = word_pattern(question.goal.words), question.settings.saturation
    return [
        Verdict(None, NOT_ITS_PROMPT)
        if (text := completion.continuation) is None
        else Verdict(min(matched_share(text, pattern) / saturation, 1.0))
        for completion in completions
    ]


def counted_words(texts: Sequence[str], goal: Goal) -> set[str]:
    """The words and phrases of some texts that a goal's list names, as they are written there.

    A text that is longer or shorter without case is passed over, as places in one are none in the
    other.
    """
    if not goal.words:
        return set()
    pattern = word_pattern(goal.words)
    return {
        text[slice(*match.span(1))]
        for text in texts
        if len(compared := folded(text)) == len(text)
        for match in pattern.finditer(compared)
    }


class Calibration(NamedTuple):
    """What unsteered completions are like."""

    fluent: float
    """Median loss as written, nats per token."""
    shuffled: float
    """Median loss with the words in random order."""
    variety: float
    """Median share of distinct bigrams."""


def fluency(loss: float, calibration: Calibration) -> float:
    """1 at the unsteered loss and below, 0 at the loss of shuffled words and above, linear
    between."""
    fraction = (loss - calibration.fluent) / (calibration.shuffled - calibration.fluent)
    return 1.0 - min(max(fraction, 0.0), 1.0)


def variety(sequence: Sequence[str], calibration: Calibration) -> float:
    """Share of distinct bigrams in units of the unsteered share, at most 1."""
    return min(distinct_bigram_share(sequence) / calibration.variety, 1.0)


def _coherence(completions: Sequence[Completion], question: Question) -> list[Verdict]:
    if question.losses is None:
        raise SaeflowError(
            "judge 'lexical': coherence is measured by a model's loss; give the judge the model"
        )
    unsteered = [
        completion for completion in question.unsteered if units(completion.continuation or "")
    ]
    if not unsteered:
        raise SaeflowError(
            "judge 'lexical': there is no unsteered completion to compare with; "
            "steering.completions.scales must hold 0.0"
        )
    shuffled = [_shuffled(completion, question.seed) for completion in unsteered]
    judged = [completion for completion in completions if units(completion.continuation or "")]
    every = list(dict.fromkeys([*unsteered, *shuffled, *judged]))
    losses = dict(zip(every, question.losses(every), strict=True))
    calibration = _calibrate(unsteered, shuffled, losses)
    return [_coherence_of(completion, losses, calibration) for completion in completions]


def _coherence_of(
    completion: Completion, losses: Mapping[Completion, float], calibration: Calibration
) -> Verdict:
    if completion.continuation is None:
        return Verdict(None, NOT_ITS_PROMPT)
    sequence = units(completion.continuation)
    if not sequence:  # the model wrote nothing, or white space: that is judged, not missing
        return Verdict(0.0)
    if not math.isfinite(losses[completion]):
        return Verdict(None, NO_LOSS)
    if not calibration.shuffled > calibration.fluent:
        return Verdict(None, NO_SCALE)
    return Verdict(fluency(losses[completion], calibration) * variety(sequence, calibration))


def _calibrate(
    unsteered: Sequence[Completion],
    shuffled: Sequence[Completion],
    losses: Mapping[Completion, float],
) -> Calibration:
    def median_loss(completions: Sequence[Completion]) -> float:
        finite = [
            losses[completion] for completion in completions if math.isfinite(losses[completion])
        ]
        return median(finite) if finite else math.nan

    shares = [
        distinct_bigram_share(units(completion.continuation or "")) for completion in unsteered
    ]
    return Calibration(median_loss(unsteered), median_loss(shuffled), median(shares))


def _shuffled(completion: Completion, seed: int) -> Completion:
    """The completion with the words of its continuation in an order drawn for this text."""
    continuation = completion.continuation or ""
    words = continuation.split()
    order = numpy_generator(seed, "judge", "shuffle", completion.text).permutation(len(words))
    shuffled = " ".join(np.array(words, dtype=object)[order])
    # the space that stood before the first word; a word may not run into the prompt's last one
    space = continuation[: len(continuation) - len(continuation.lstrip())]
    if not space and completion.prompt.rstrip() == completion.prompt:
        space = " "
    return Completion(
        completion.prompt, completion.prompt + space + shuffled, completion.prompt_ids
    )
