"""Cleaned task vectors beside sums of decoder rows that were not optimised for answers, at equal
numbers of latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.tasks.answering import Frozen
from saeflow.analyses.tasks.cleaning import Path, Start, clean, start_of
from saeflow.analyses.tasks.prompts import Question
from saeflow.analyses.tasks.shares import Shares
from saeflow.analyses.tasks.sweep import OF_MEANS, ask, questions_of, strength
from saeflow.pursuits.dictionary import Dictionary
from saeflow.pursuits.methods import PURSUITS
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.tasks.lists import Split
    from saeflow.analyses.tasks.settings import Cleaning, TaskPrompts, TaskVectors
    from saeflow.analyses.tasks.vectors import Vectors
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

CLEANED, PLACEBO, SAE_CODES, WHOLE = "cleaned", "cleaned_placebo", "sae", "sae_whole"
CURVES = {
    "method": pl.String,
    "latents": pl.Int32,
    "penalty": pl.Float64,
    "scale": pl.Float64,
    "validation": pl.Float64,
    "chosen": pl.Boolean,
    "length": pl.Float64,
    "cosine": pl.Float64,
    "n": pl.Int32,
    **OF_MEANS,
}
CODES = {
    "method": pl.String,
    "penalty": pl.Float64,
    "chosen": pl.Boolean,
    "latent": pl.Int32,
    "value": pl.Float64,
}


class Sum(NamedTuple):
    """A vector to be tried.

    Attributes:
        method: that made it.
        latents: it is a sum of; None for a vector of the residual stream.
        vector: what is added.
        penalty: of cleaning.
        chosen: whether its penalty is the chosen one.
        scales: of which the best is sought; one that was optimised for answers is added as it is.
    """

    method: str
    latents: int | None
    vector: Float[Tensor, " d_model"]
    penalty: float | None = None
    chosen: bool = False
    scales: Sequence[float] = (1.0,)


class Compared(NamedTuple):
    """Tables of `CURVES` and `CODES`."""

    curves: pl.DataFrame
    codes: pl.DataFrame


def compare(
    lm: LanguageModel,
    sae: SAE,
    layer: int,
    pairs: Split,
    vectors: Vectors,
    prompts: TaskPrompts,
    asked: TaskVectors,
    own: Cleaning,
    seed: int,
    task: str,
    progress: Callable[[int, int], None] | None = None,
) -> Compared:
    """Clean the vector of a task in an SAE, and try what else is a sum of its latents.

    The control is cleaned as the vector is, at the chosen penalty: it begins with the vector of
    exchanged outputs, and is optimised for exchanged outputs.
    """
    mean = vectors.of(task, "mean", layer)
    test = ask(lm, pairs, "test", prompts, prompts.template, seed, task)
    shares = Shares(test.ends, asked.draws, asked.level, seed, task)
    validation = Frozen(lm, asked_for(lm, pairs, "validation", prompts, task), layer)
    train = asked_for(lm, pairs, "train", prompts, task)
    start = start_of(sae, mean.to(lm.device))
    order = numpy_generator(seed, "tasks", task, "cleaning")
    path = clean(lm, sae, start, layer, train, validation, own, order, progress)
    best = path.points[path.chosen]
    placebo_vector = vectors.of(task, "placebo", layer).to(lm.device)
    once = own.model_copy(
        update={"penalties": [best.penalty], "steps": own.steps * (path.chosen + 1)}
    )
    placebo = clean(
        lm, sae, start_of(sae, placebo_vector), layer, with_exchanged_answers(train), validation,
        once, numpy_generator(seed, "tasks", task, "placebo"),
    )  # fmt: skip
    counts = sorted({*own.counts, max(len(best.latents), 1)})
    sums = [
        *_of_path(path, CLEANED),
        *_of_path(placebo, PLACEBO),
        *_of_pursuits(sae, mean, own, counts, asked.scales),
        *_of_codes(sae, start, counts, asked.scales),
        *(
            Sum(kind, None, vectors.of(task, kind, layer), scales=asked.scales)
            for kind in asked.kinds
        ),
    ]
    to_tell = Frozen(lm, test.questions, layer)
    rows = [_row(each, validation, to_tell, shares, mean) for each in sums]
    return Compared(pl.DataFrame(rows, schema=CURVES), _codes(path, placebo))


def asked_for(
    lm: LanguageModel, pairs: Split, split: str, prompts: TaskPrompts, task: str
) -> list[Question]:
    """Pairs of a split as prompts without examples, in the template that vectors are of."""
    return questions_of(lm, pairs, split, prompts, prompts.template, task)


def with_exchanged_answers(questions: Sequence[Question]) -> list[Question]:
    """Every prompt with the answer of the next."""
    moved = [*questions[1:], questions[0]]
    return [
        each._replace(answer=other.answer) for each, other in zip(questions, moved, strict=True)
    ]


def _of_path(path: Path, method: str) -> list[Sum]:
    return [
        Sum(method, len(point.latents), point.vector, point.penalty, place == path.chosen)
        for place, point in enumerate(path.points)
    ]


def _of_pursuits(
    sae: SAE,
    vector: Float[Tensor, " d_model"],
    own: Cleaning,
    counts: Sequence[int],
    scales: Sequence[float],
) -> list[Sum]:
    dictionary = Dictionary(sae.W_dec)
    most = min(max(counts), sae.d_sae)
    sums = []
    for name in own.pursuits:
        pursued = PURSUITS[name](vector[None].to(sae.W_dec.device), dictionary, most)
        sums += [
            Sum(name, k, pursued.sums(dictionary.atoms, k)[0].float().cpu(), scales=scales)
            for k in counts
            if k <= most
        ]
    return sums


def _of_codes(sae: SAE, start: Start, counts: Sequence[int], scales: Sequence[float]) -> list[Sum]:
    """The largest codes that the encoder gives, and all of them."""
    values = start.values(torch.ones_like(start.excess))
    order = values.argsort(descending=True, stable=True)
    rows = sae.W_dec[start.latents].float()
    sums = [
        Sum(SAE_CODES, k, (values[order[:k]] @ rows[order[:k]]).cpu(), scales=scales)
        for k in counts
        if k <= len(order)
    ]
    return [*sums, Sum(WHOLE, len(order), (values @ rows).cpu(), scales=scales)]


def _row(
    each: Sum, validation: Frozen, test: Frozen, shares: Shares, mean: Float[Tensor, " d_model"]
) -> Mapping[str, object]:
    best = strength(validation, each.vector, each.scales)
    answers = test.with_added(best.scale * each.vector)
    cosine = torch.nn.functional.cosine_similarity(each.vector, mean.cpu(), dim=0)
    return {
        "method": each.method,
        "latents": each.latents,
        "penalty": each.penalty,
        "scale": best.scale,
        "validation": best.validation,
        "chosen": each.chosen,
        "length": best.scale * float(each.vector.norm()),
        "cosine": float(cosine),
        "n": len(answers.loss),
        **shares.row(answers),
    }


def _codes(path: Path, placebo: Path) -> pl.DataFrame:
    rows = [
        (method, point.penalty, place == own.chosen, int(latent), float(value))
        for method, own in ((CLEANED, path), (PLACEBO, placebo))
        for place, point in enumerate(own.points)
        for latent, value in zip(point.latents, point.values, strict=True)
    ]
    return pl.DataFrame(rows, schema=CODES, orient="row")
