"""How much of what sets two models' predictions apart goes through which latents.

The tuned model goes on from the base's residual stream, to which a part of the difference between
the two is added: the contributions of some latents, of all, the error that the crosscoder leaves,
or a control. With all of it the tuned model has its own stream back; with none it goes on from the
base's.

Source: Minder, Dumas et al. 2025, arXiv 2504.02922, section 3.3. Differences: contributions of
    latents leave the rest of the difference out exactly, random directions of the same norms fire
    as the latents do, and everything has an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.analyses.diffing.classes import NAMES
from saeflow.analyses.diffing.divergence import token_divergence
from saeflow.analyses.diffing.prompts import AskedPrompts
from saeflow.analyses.diffing.scaling import Sides
from saeflow.analyses.diffing.settings import Causal, Classes
from saeflow.analyses.diffing.texts import Passed, Text, vocabulary_size
from saeflow.analyses.diffing.words import OF_THE_BASE
from saeflow.models.hooks import HookFunction, attach, editing, parse_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import clean_and_again, final_states, position_chunks, unembed
from saeflow.saes.comparison import Seen
from saeflow.saes.crosscoder import Crosscoder
from saeflow.seeds import numpy_generator, torch_generator
from saeflow.statistics.clusters import POSITIVE
from saeflow.statistics.means import as_wide_as_students, interval, seen_weights

CAUSAL = {
    "model": pl.String,
    "of": pl.String,
    "position": pl.String,
    "kind": pl.String,
    "name": pl.String,
    "number": pl.Int32,
    "kl": pl.Float64,
    "kl_low": pl.Float64,
    "kl_high": pl.Float64,
    "recovered": pl.Float64,
    "recovered_low": pl.Float64,
    "recovered_high": pl.Float64,
    "n": pl.Int32,
}


STATES_HELD = 1 << 27
"""Numbers of final states that are held at once, so that memory depends on no number of parts."""


class Difference(NamedTuple):
    """What of the difference is put in.

    Attributes:
        kind: of `words.KINDS`.
        name: of a class.
        latents: whose contributions count; of ``random``, whose activations.
        draw: of random directions.
    """

    kind: str
    name: str | None = None
    latents: Sequence[int] = ()
    draw: int = 0

    @property
    def key(self) -> tuple[str, str | None, int]:
        """What the table has a row for: draws are pooled, single latents are not."""
        single = self.kind == "single"
        number = self.latents[0] if single else len(self.latents)
        return self.kind, self.name, number


def asked(latents: pl.DataFrame, settings: Causal) -> list[Difference]:
    """The parts of the difference to try.

    Args:
        latents: of one model, with the columns of `classes.LATENTS`.
        settings: how many.
    """
    alive = latents.filter(pl.col("class") != "dead")
    order = alive.sort("contribution", descending=True, maintain_order=True)["latent"].to_list()
    kinds = ("none", "everything", "latents", "bias", "error", "mean_difference")
    tried = [Difference(kind) for kind in kinds]
    tried += [Difference("base_model"), Difference("stream_in_base")]
    for name in NAMES:
        own = alive.filter(pl.col("class") == name)["latent"].to_list()
        tried += [Difference("class", name, own)] if own else []
        random = (Difference("random", name, own, draw) for draw in range(settings.random))
        tried += random if own else ()
    for number in sorted({min(number, len(order)) for number in settings.numbers} - {0}):
        tried.append(Difference("largest", None, order[:number]))
        tried += [
            Difference("random", None, order[:number], draw) for draw in range(settings.random)
        ]
    return tried + [Difference("single", None, [latent]) for latent in order[: settings.singles]]


@torch.no_grad()
def measure_causes(
    crosscoder: Crosscoder,
    sides: Sides,
    text: Text,
    tried: Sequence[Difference],
    resampled: Classes,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    prompts: AskedPrompts | None = None,
) -> pl.DataFrame:
    """KL(tuned ‖ edited) per token of every part of the difference, and the share that it recovers
    of what the base's stream costs.

    Args:
        crosscoder: on the models' device.
        sides: the two models.
        text: all sources of the crosscoder, in its order.
        tried: parts of the difference; the first is ``none``.
        resampled: level and draws of the intervals, which are over blocks or groups of prompts.
        seed: of the study.
        progress: called with (blocks and prompts done, all of them).
        prompts: on which the same is measured; the mean difference is that of the text.

    Returns:
        The columns of `CAUSAL`; ``of`` is null for the text, else the class of prompts, and
        ``position`` which token of these; ``number`` counts latents, and is the latent itself of a
        ``single``. Recovered is null where the base's stream costs nothing, and of predictions of
        the base itself.
    """
    parts = Parts(crosscoder, sides, _mean_difference(sides, text), seed)
    model, whole = text.sources[sides.tuned[0]].name, len(text.tokens)
    count = whole + (len(prompts.tokens) if prompts else 0)

    def report(done: int) -> None:
        if progress:
            progress(done, count)

    sums, counts = np.zeros((len(tried), whole)), np.zeros(whole)
    for passed in text.passes(at_once=_at_once(parts, text, tried)):
        measured = passed.kept.clone()
        measured[:, -1] = False
        values = _of_pass(parts, text, passed, measured, tried)
        block = measured.nonzero()[:, 0].cpu().numpy() + passed.first
        for number, own in enumerate(values):
            sums[number] += np.bincount(block, own, whole)
        counts += np.bincount(block, minlength=whole)
        report(passed.first + len(passed.tokens))
    tables = [_table(tried, sums, counts, (model, None, None), resampled, seed)]
    if prompts:
        asked_text = text._replace(tokens=prompts.tokens)
        kl = np.zeros((len(tried), *prompts.places.shape))
        for passed in asked_text.passes(at_once=_at_once(parts, asked_text, tried)):
            rows = slice(passed.first, passed.first + len(passed.tokens))
            places = torch.from_numpy(prompts.places[rows]).to(passed.tokens.device)
            measured = torch.zeros_like(passed.kept).scatter_(1, places, True)
            values = _of_pass(parts, asked_text, passed, measured, tried)
            # Rows come in the order of tokens, names in their own.
            order = prompts.places[rows].argsort(1).argsort(1)
            own = values.reshape(len(tried), *order.shape)
            kl[:, rows] = np.take_along_axis(own, order[None], axis=2)
            report(whole + rows.stop)
        tables += _by_position(tried, kl, prompts, model, resampled, seed)
    return pl.concat(tables)


def _at_once(parts: Parts, text: Text, tried: Sequence[Difference]) -> int:
    """Blocks of a pass, so that final states of all parts fit into a bounded memory."""
    of_block = len(tried) * text.tokens.shape[1] * parts.crosscoder.d_model
    return max(1, STATES_HELD // of_block)


def _by_position(
    tried: Sequence[Difference],
    kl: Float64[np.ndarray, "tried prompts positions"],
    prompts: AskedPrompts,
    model: str,
    resampled: Classes,
    seed: int,
) -> list[pl.DataFrame]:
    """What was measured on prompts, a table per class and position."""
    tables = []
    for label in dict.fromkeys(prompts.classes):
        own = np.array([each == label for each in prompts.classes])
        _, groups = np.unique(prompts.groups[own], return_inverse=True)
        counts = np.bincount(groups).astype(float)
        for place, name in enumerate(prompts.names):
            sums = np.stack([np.bincount(groups, values) for values in kl[:, own, place]])
            key = (model, label, name)
            tables.append(_table(tried, sums, counts, key, resampled, seed))
    return tables


class Parts:
    """Parts of the difference at every row of a pass."""

    def __init__(
        self,
        crosscoder: Crosscoder,
        sides: Sides,
        mean: Float[Tensor, "hooks d_model"],
        seed: int,
    ) -> None:
        self.crosscoder, self.sides, self.mean, self.seed = crosscoder, sides, mean, seed
        self.base, self.tuned = (
            torch.tensor(list(places), device=crosscoder.W_dec.device) for places in sides
        )
        self.directions = crosscoder.W_dec[:, self.tuned] - crosscoder.W_dec[:, self.base]
        self.bias = crosscoder.b_dec[self.tuned] - crosscoder.b_dec[self.base]

    def of(
        self, x: Float[Tensor, "rows n_sources d_model"], z: Float[Tensor, "rows d_sae"]
    ) -> Mapping[str, Float[Tensor, "rows hooks d_model"]]:
        """The parts that are no choice of latents, by kind."""
        whole = x[:, self.tuned] - x[:, self.base]
        latents = self.summed(z, self.directions)
        return {
            "none": torch.zeros_like(whole),
            "everything": whole,
            "latents": latents,
            "bias": self.bias.expand_as(whole),
            "error": whole - latents - self.bias,
            "mean_difference": self.mean.expand_as(whole),
        }

    def chosen(
        self, difference: Difference, z: Float[Tensor, "rows d_sae"]
    ) -> Float[Tensor, "rows hooks d_model"]:
        """What some latents contribute, or as many random directions of their norms."""
        places = torch.tensor(list(difference.latents), dtype=torch.long, device=z.device)
        directions = self.directions[places]
        if difference.kind == "random":
            purpose = (*("diffing", "random", difference.draw), len(difference.latents))
            generator = torch_generator(self.seed, *purpose, difference.name or "")
            drawn = torch.randn(directions.flatten(1).shape, generator=generator)
            length = directions.flatten(1).norm(dim=1, keepdim=True)
            directions = (normalize(drawn, dim=1).to(length) * length).view_as(directions)
        return self.summed(z[:, places], directions)

    def summed(
        self, z: Float[Tensor, "rows latents"], directions: Float[Tensor, "latents hooks d_model"]
    ) -> Float[Tensor, "rows hooks d_model"]:
        """Sums of directions, weighted by latents."""
        return (z @ directions.flatten(1)).view(len(z), *directions.shape[1:])


def _of_pass(
    parts: Parts,
    text: Text,
    passed: Passed,
    measured: Bool[Tensor, "blocks pos"],
    tried: Sequence[Difference],
) -> Float64[np.ndarray, "tried rows"]:
    """KL per measured position of every part."""
    sides = parts.sides
    base, tuned = (text.sources[places[0]].lm for places in sides)
    z = parts.crosscoder.encode(passed.x)
    fixed = parts.of(passed.x, z)
    states: list[Tensor] = []
    from_base, from_tuned = ([text.sources[place] for place in places] for places in sides)
    layer = min(parse_hook(source.hook).layer for source in from_tuned)
    clean, again = clean_and_again(tuned, passed.tokens, layer)
    clean = clean[measured]
    for difference in tried:
        if difference.kind == "base_model":
            final = final_states(base, passed.tokens)
        elif difference.kind == "stream_in_base":
            with _replaced(base, from_base, passed, passed.x[:, parts.tuned]):
                final = final_states(base, passed.tokens)
        else:
            part = fixed.get(difference.kind)
            part = parts.chosen(difference, z) if part is None else part
            with _replaced(tuned, from_tuned, passed, passed.x[:, parts.base] + part):
                final = again()
        states.append(final[measured])
    size = vocabulary_size(base, tuned)
    kl = torch.zeros(len(tried), len(clean), dtype=torch.float64)
    for rows in position_chunks(tuned, len(clean)):
        p = unembed(tuned, clean[rows]).float()[:, :size].log_softmax(-1)
        for number, difference in enumerate(tried):
            ends = base if difference.kind in OF_THE_BASE else tuned
            q = unembed(ends, states[number][rows]).float()[:, :size].log_softmax(-1)
            kl[number, rows] = token_divergence(p, q).cpu()
    return kl.numpy()


@contextmanager
def _replaced(
    lm: LanguageModel,
    sources: Sequence[Seen],
    passed: Passed,
    streams: Float[Tensor, "rows hooks d_model"],
) -> Iterator[None]:
    """Within the block, a model's activations at some hooks are others where positions count."""

    def replace(x: Tensor, stream: Float[Tensor, "rows d_model"]) -> Tensor:
        return x.masked_scatter(passed.kept[..., None], stream.to(x.dtype))

    functions: list[tuple[str, HookFunction]] = []
    for number, source in enumerate(sources):
        functions += editing(source.hook, partial(replace, stream=streams[:, number]))
    with attach(lm, functions):
        yield


def _mean_difference(sides: Sides, text: Text) -> Float[Tensor, "hooks d_model"]:
    """The mean of the tuned model's activations less the base's, over all rows."""
    total: Tensor | None = None
    rows = 0
    for passed in text.passes():
        tuned, base = (
            passed.x[:, torch.tensor(list(places), device=passed.x.device)]
            for places in (sides.tuned, sides.base)
        )
        summed = (tuned - base).sum(0, dtype=torch.float64)
        total = summed if total is None else total + summed
        rows += len(passed.x)
    assert total is not None
    return (total / max(rows, 1)).float()


def _table(
    tried: Sequence[Difference],
    sums: Float64[np.ndarray, "tried units"],
    counts: Float64[np.ndarray, " units"],
    named: tuple[str, str | None, str | None],
    resampled: Classes,
    seed: int,
) -> pl.DataFrame:
    """Means over units (blocks, or groups of prompts), which are resampled."""
    generator = numpy_generator(seed, "diffing", "causal")
    weights = seen_weights(len(counts), resampled.draws, generator)
    pooled: dict[tuple[str, str | None, int], list[Float64[np.ndarray, " units"]]] = {}
    for difference, own in zip(tried, sums, strict=True):
        pooled.setdefault(difference.key, []).append(own)
    nothing = sums[0]

    def ratio(
        over: Float64[np.ndarray, " units"],
        under: Float64[np.ndarray, " units"],
        bounds: tuple[float, float],
    ) -> tuple[float, float, float]:
        value = over.sum() / under.sum()
        drawn = (weights @ over / (weights @ under))[:, None]
        drawn = as_wide_as_students(drawn, value, len(counts), resampled.level)
        low, high = interval(np.stack([drawn, drawn]).clip(*bounds), resampled.level)
        return float(value), float(low[0]), float(high[0])

    def rows() -> Iterator[tuple[object, ...]]:
        for key, draws in pooled.items():
            own = np.mean(draws, axis=0)
            share: tuple[float | None, ...] = (None, None, None)
            if nothing.sum() > 0 and key[0] not in OF_THE_BASE:
                share = ratio(nothing - own, nothing, (-np.inf, 1))
            yield (*named, *key, *ratio(own, counts, POSITIVE), *share, len(counts))

    table = pl.DataFrame(list(rows()), schema=CAUSAL, orient="row")
    return table.with_columns(pl.selectors.float().fill_nan(None))
