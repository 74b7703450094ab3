"""An adapter for self-explanation: one scale and one bias, learned, that turn a direction into what
the model takes for a word.

A direction at the norm of the stream is not what the model sees where a word stands: what all words
have in common there is missing. The model stays as it is; a number and a vector are fitted so that
it says the words that belong to directions (Pepper et al. 2026, "Learning self-interpretation",
arXiv 2602.10352). Directions and words come from the model's own embedding, and from decoder rows
with the tokens that they promote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.analyses.labels.patching import Placed, Prefix, resid_pre
from saeflow.analyses.labels.self_explanation import (
    ROWS_AT_ONCE,
    Place,
    SelfExplanations,
    explained_at,
    injected,
    prepared,
)
from saeflow.analyses.labels.settings import ScaleBiasAdapter, SelfExplanation
from saeflow.artifacts import sealed
from saeflow.errors import SaeflowError
from saeflow.models.running import capture, unembed
from saeflow.models.vocabulary import vocabulary
from saeflow.seals import stamp
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import SHARE, Resampling, columns
from saeflow.tables import Schema

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

LONGEST = 6
"""Tokens of a word that are learned and scored."""
SHORTEST = 3
"""Letters of a word: shorter ones are parts of many."""
CHOOSING = 32
"""Pairs by which the plain scale is chosen that the adapter is held against."""
FEWEST = 8
"""Words to fit on, and as many to hold out, at least."""
QUOTES = " \"'“‘(["
EMBEDDING, LATENT = "embedding", "latent"
ADAPTER: Schema = {
    "pairs": pl.String,
    "way": pl.String,
    "scale": pl.Float64,
    "n": pl.Int32,
    **{f"{name}{end}": pl.Float64 for name in ("loss", "right") for end in ("", "_low", "_high")},
}
"""Of pairs that nothing was fitted on: nats per token of their words, and the share of them whose
word is the most probable one. ``way``: the ``adapter``; its ``bias`` alone; the adapter with the
direction of another pair (``shuffled``); the ``plain`` direction at the best scale."""


class Pairs(NamedTuple):
    """Directions, and what they are about.

    Attributes:
        directions: unit norm.
        words: of each.
        kinds: where each comes from, `EMBEDDING` or `LATENT`.
    """

    directions: Float[Tensor, "pairs d_model"]
    words: list[str]
    kinds: list[str]

    def at(self, places: Sequence[int]) -> Pairs:
        """Some of them."""
        index = torch.tensor(places, dtype=torch.long)
        chosen = ([each[place] for place in places] for each in (self.words, self.kinds))
        return Pairs(self.directions[index], *chosen)


def embedding_pairs(lm: LanguageModel, count: int, seed: int) -> Pairs:
    """Words that are a token with a space before it, and their rows of the embedding less the mean
    of all rows; drawn from those of `SHORTEST` letters and more."""
    held = vocabulary(lm.tokenizer, lm.d_vocab)
    fits = [
        place
        for place, text in enumerate(held.texts)
        if _is_word(text)
        and not held.special[place]
        and (text.startswith(" ") or not held.marks_space)
    ]
    draws = numpy_generator(seed, "labels", "adapter", "words")
    places = np.sort(draws.choice(fits, min(count, len(fits)), replace=False)).tolist()
    table = lm.model.get_input_embeddings().weight.detach().float()
    rows = table[torch.from_numpy(held.ids[places].astype(np.int64)).to(table.device)]
    directions = normalize(rows - table.mean(0), dim=1).cpu()
    words = [held.texts[place].strip() for place in places]
    return Pairs(directions, words, [EMBEDDING] * len(words))


def latent_pairs(
    decoder: Float[Tensor, "d_sae d_model"], promoted: pl.DataFrame, count: int, seed: int
) -> Pairs:
    """Decoder rows, and the token that each promotes most where that is a word, and not a part of
    one.

    Args:
        decoder: rows of all latents.
        promoted: latent, token: of latents that are not explained.
        count: how many are drawn.
        seed: of the study.
    """
    opens = " " if promoted["token"].str.starts_with(" ").any() else ""
    words = {
        latent: token.strip()
        for latent, token in promoted.select("latent", "token").sort("latent").iter_rows()
        if _is_word(token) and token.startswith(opens)
    }
    draws = numpy_generator(seed, "labels", "adapter", "latents")
    latents = np.sort(draws.choice(list(words), min(count, len(words)), replace=False)).tolist()
    rows = decoder[torch.tensor(latents, dtype=torch.long, device=decoder.device)]
    directions = normalize(rows.float().cpu(), dim=1)
    return Pairs(directions, [words[latent] for latent in latents], [LATENT] * len(latents))


def _is_word(text: str) -> bool:
    return len(text.strip()) >= SHORTEST and text.strip().isalpha()


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Pairs of several sources, one after another."""
    return Pairs(
        torch.cat([part.directions for part in parts]),
        [word for part in parts for word in part.words],
        [kind for part in parts for kind in part.kinds],
    )


class Adapter(NamedTuple):
    """What is learned.

    Attributes:
        scale: of a direction, as scales of self-explanation are.
        bias: what is added, in the same unit.
    """

    scale: float
    bias: Float[Tensor, " d_model"]

    def of(self, place: Place) -> Place:
        """The place at which scale and bias are put in."""
        unit = place.norm if place.kind == "replace" else 1.0
        return place._replace(bias=self.bias * unit)


class Reading(NamedTuple):
    """A prompt with a placeholder, and what may be said behind it."""

    prefix: Prefix
    gap: str
    """What stands between the prompt and a word."""

    @classmethod
    def of(cls, lm: LanguageModel, placed: Placed) -> Reading:
        """Run what stands before the placeholder."""
        ending = lm.tokenizer.decode(placed.tokens[-1:])
        return cls(Prefix(lm, placed), "" if ending[-1:] in QUOTES else " ")

    def tokens(self, lm: LanguageModel, words: Sequence[str]) -> list[list[int]]:
        """The first tokens of words, as they stand behind the prompt."""
        return [lm.tokenize(f"{self.gap}{word}", bos=False)[:LONGEST] for word in words]


class Said(NamedTuple):
    """How well words are said: nats per token of each, and whether it is what comes first."""

    losses: Float[Tensor, " rows"]
    right: Float[Tensor, " rows"]


def said(
    lm: LanguageModel,
    reading: Reading,
    vectors: Float[Tensor, "rows d_model"],
    words: Sequence[Sequence[int]],
    place: Place,
) -> Said:
    """How well a model says words of vectors that are put in; with a gradient where these have one.

    Args:
        vectors: in the units of `patching.Injection`.
        words: tokens of each row's word, one at least.
    """
    longest = max(map(len, words))
    padded = [[*word, *[word[-1]] * (longest - len(word))] for word in words]
    targets = torch.tensor(padded, device=lm.device)
    counts = torch.tensor([len(word) for word in words], device=lm.device)
    states, _ = reading.prefix.states(
        vectors.to(lm.device), place.layer, place.kind, behind=targets[:, :-1]
    )
    states = states[:, -longest:]
    logs = unembed(lm, states.flatten(0, 1)).float().log_softmax(-1).view(*states.shape[:2], -1)
    losses = -logs.gather(2, targets[..., None])[..., 0]
    inside = torch.arange(longest, device=lm.device) < counts[:, None]
    first = (logs[:, 0].argmax(-1) == targets[:, 0]).float()
    return Said(torch.where(inside, losses, 0.0).sum(1) / counts, first)


def fit(
    lm: LanguageModel,
    readings: Sequence[Reading],
    pairs: Pairs,
    place: Place,
    asked: ScaleBiasAdapter,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Adapter:
    """Fit scale and bias by Adam to the mean loss of words, in turns over the prompts.

    Begun at scale 1 and with what stands at the placeholder itself, less the mean direction, as
    bias: there all directions together are the word that they take the place of.

    Args:
        lm: the model; its weights stay as they are.
        readings: prompts.
        pairs: to be fitted on.
        place: where directions are put in.
        asked: how long.
        seed: of the study; names the draws of batches.
        progress: told how many steps are done.
    """
    unit = place.norm if place.kind == "replace" else 1.0
    scale = torch.ones((), requires_grad=True)
    bias = (
        _there(lm, readings, place) / unit if place.kind == "replace" else torch.zeros(lm.d_model)
    )
    bias = (bias - pairs.directions.mean(0)).requires_grad_()
    rate = asked.learning_rate
    optimiser = torch.optim.Adam(
        [{"params": [scale], "lr": rate}, {"params": [bias], "lr": rate / math.sqrt(lm.d_model)}]
    )
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, asked.steps)
    words = [reading.tokens(lm, pairs.words) for reading in readings]
    with torch.enable_grad():
        for step, batch in enumerate(_batches(len(pairs.words), asked, seed)):
            turn = step % len(readings)
            vectors = unit * (scale * pairs.directions[batch] + bias)
            own = [words[turn][row] for row in batch.tolist()]
            loss = said(lm, readings[turn], vectors, own, place).losses.mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            decay.step()
            if progress:
                progress(step + 1, asked.steps)
    return Adapter(float(scale.detach()), bias.detach())


@torch.no_grad()
def _there(
    lm: LanguageModel, readings: Sequence[Reading], place: Place
) -> Float[Tensor, " d_model"]:
    """The mean stream at the placeholders of prompts."""
    hook, rows = resid_pre(place.layer), []
    for reading in readings:
        placed = reading.prefix.placed
        tokens = torch.tensor([placed.tokens], device=lm.device)
        stream = capture(lm, tokens, [hook])[hook][0]
        rows.append(stream[torch.tensor(placed.positions, device=lm.device)].float().cpu())
    return torch.cat(rows).mean(0)


def _batches(count: int, asked: ScaleBiasAdapter, seed: int) -> Iterator[Int[Tensor, " batch"]]:
    """Rows of every step, each pair as often as any other."""
    draws = numpy_generator(seed, "labels", "adapter", "batches")
    size = min(asked.batch, count)
    order = np.empty(0, np.int64)
    for _ in range(asked.steps):
        if len(order) < size:
            order = np.concatenate([order, draws.permutation(count)])
        yield torch.from_numpy(order[:size])
        order = order[size:]


def split(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Pairs to fit on, and pairs that are held out; no word is on both sides."""
    names = sorted({word.lower() for word in pairs.words})
    draws = numpy_generator(seed, "labels", "adapter", "split").permutation(len(names))
    held = {names[place] for place in draws[: round(share * len(names))]}
    sides: Mapping[bool, list[int]] = {True: [], False: []}
    for number, word in enumerate(pairs.words):
        sides[word.lower() in held].append(number)
    return pairs.at(sides[False]), pairs.at(sides[True])


@torch.no_grad()
def scored(
    lm: LanguageModel,
    readings: Sequence[Reading],
    directions: Float[Tensor, "pairs d_model"],
    words: Sequence[str],
    scale: float,
    place: Place,
) -> Float[np.ndarray, "2 pairs"]:
    """Nats per token of words and whether they come first, means over prompts."""
    total = np.zeros((2, len(words)))
    for reading in readings:
        tokens = reading.tokens(lm, words)
        for first in range(0, len(words), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            vectors = injected(directions[part], scale, place)
            log_probabilities = said(lm, reading, vectors, tokens[part], place)
            total[:, part] += np.stack([each.double().cpu().numpy() for each in log_probabilities])
    return total / len(readings)


def held_out_table(
    lm: LanguageModel,
    readings: Sequence[Reading],
    adapter: Adapter,
    fitted: Pairs,
    held: Pairs,
    scales: Sequence[float],
    place: Place,
    asked: ScaleBiasAdapter,
    seed: int,
) -> pl.DataFrame:
    """How well words of held-out pairs are said, by the adapter and beside it.

    Args:
        adapter: fitted.
        fitted: what it was fitted on, from which the best plain scale is chosen.
        held: what it was not.
        scales: of plain directions.
        place: without a bias.

    Returns:
        The columns of `ADAPTER`.
    """
    few = fitted.at(range(min(CHOOSING, len(fitted.words))))
    by_scale = [
        scored(lm, readings, few.directions, few.words, scale, place)[0].mean() for scale in scales
    ]
    best = float(scales[int(np.argmin(by_scale))])
    order = numpy_generator(seed, "labels", "adapter", "shuffled").permutation(len(held.words))
    others = held.directions[torch.from_numpy(order)]
    ways = {
        "adapter": (held.directions, adapter.scale, adapter.of(place)),
        "bias": (held.directions, 0.0, adapter.of(place)),
        "shuffled": (others, adapter.scale, adapter.of(place)),
        "plain": (held.directions, best, place),
    }
    rows = []
    kinds = np.array(held.kinds)
    for way, (directions, scale, where) in ways.items():
        losses, right = scored(lm, readings, directions, held.words, scale, where)
        for kind in (EMBEDDING, LATENT):
            own = kinds == kind
            if not own.any():
                continue
            draws = numpy_generator(seed, "labels", "adapter", "interval", kind)
            resampled = Resampling(np.flatnonzero(own), asked.bootstrap, asked.level, draws)
            rows.append(
                {"pairs": kind, "way": way, "scale": scale, "n": int(own.sum())}
                | columns("loss", resampled.mean(losses[own]))
                | columns("right", resampled.mean(right[own], SHARE))
            )
    return pl.DataFrame(rows, schema=ADAPTER)


class Adapted(NamedTuple):
    """What a model said of directions through an adapter.

    Attributes:
        explanations: labels and texts.
        adapter: as it was fitted.
        place: where it puts directions in.
        held_out: the columns of `ADAPTER`.
    """

    explanations: SelfExplanations
    adapter: Adapter
    place: Place
    held_out: pl.DataFrame


def adapted_explanations(
    lm: LanguageModel,
    decoder: Float[Tensor, "d_sae d_model"],
    latents: Sequence[int],
    blocks: Int[Tensor, "blocks pos"],
    promoted: pl.DataFrame | None,
    asked: SelfExplanation,
    adapter: ScaleBiasAdapter,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Adapted:
    """Fit an adapter, and have the model explain the decoder rows of latents through it.

    Args:
        lm: the model.
        decoder: rows of all latents.
        latents: which are explained; nothing is fitted on them.
        blocks: text, from which the typical norm is taken.
        promoted: latent, token: what each latent promotes most; None has none.
        asked: prompts and place, as for self-explanation without an adapter.
        adapter: how it is fitted.
        seed: of the study.
        progress: told how many steps are done.

    Raises:
        SaeflowError: fewer than 8 words are left on one side; else as `self_explanations`.
    """
    templates, where = prepared(lm, blocks, asked)
    sources = [embedding_pairs(lm, adapter.words, seed)] if adapter.words else []
    if promoted is not None and adapter.latents:
        others = promoted.filter(~pl.col("latent").is_in(list(latents)))
        sources.append(latent_pairs(decoder, others, adapter.latents, seed))
    fitted, held = split(joined(sources), adapter.held_out, seed)
    if min(len(fitted.words), len(held.words)) < FEWEST:
        raise SaeflowError(
            f"labels.adapter: {len(fitted.words)} words are left to fit on and {len(held.words)} "
            f"to hold out, and {FEWEST} of each are needed; raise labels.adapter.words"
        )
    readings = [Reading.of(lm, placed) for placed in templates]
    made = fit(lm, readings, fitted, where, adapter, seed, progress)
    table = held_out_table(lm, readings, made, fitted, held, asked.scales, where, adapter, seed)
    explanations = explained_at(
        lm, templates, decoder, latents, [made.scale], made.of(where), asked, seed, source="adapted"
    )
    return Adapted(explanations, made, made.of(where), table)


def save_adapter(path: Path, made: Adapted) -> None:
    """Write the scale and the bias in units of the stream, so that ``scale × unit direction +
    bias`` is what is put in at the input of ``layer``; with ``edit: add`` in units of the norm of
    what is there."""
    place = made.place
    place_fields = {"layer": place.layer, "edit": place.kind, "norm": place.norm}
    unit = place.norm if place.kind == "replace" else 1.0
    tensors = {"scale": torch.tensor(made.adapter.scale * unit), "bias": made.adapter.bias * unit}
    metadata = {name: str(value) for name, value in place_fields.items()}
    with sealed(path) as temporary:
        save_file(tensors, temporary, metadata={**metadata, **stamp()})
