"""What a model says of its own directions: self-explanation with the scale chosen against random
directions.

A direction is put in place of a word, at several scales; at most of them the model says nothing
about it. Which scale to believe is read off what it says next, beside what it says of random
directions at the same scale: so every read-out is in units of what means nothing, and a direction
whose best read-out random directions reach, too, gets no label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.analyses.labels.patching import (
    EditKind,
    Placed,
    Prefix,
    patched,
    place,
    typical_norm,
)
from saeflow.analyses.labels.settings import SelfExplanation
from saeflow.analyses.labels.wording import LABELS, one_line
from saeflow.config.sections import Sampling
from saeflow.decoding.answers import READ_AT
from saeflow.decoding.ending import lengths
from saeflow.decoding.generation import generate
from saeflow.errors import SaeflowError
from saeflow.judging.words import distinct_bigram_share, units
from saeflow.models.chat import continuation_text
from saeflow.models.running import unembed
from saeflow.seeds import torch_generator
from saeflow.statistics.false_discovery import q_values
from saeflow.tables import Schema

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

ROWS_AT_ONCE = 128
MARKS = " \"'“”.,:;"
"""What a phrase neither opens nor ends with."""
GREEDY = Sampling(temperature=0.0)
READ_OUTS: Schema = {
    "latent": pl.Int32,
    "template": pl.Int32,
    "scale": pl.Float64,
    "entropy": pl.Float64,
    "self_similarity": pl.Float64,
    "contrast": pl.Float64,
    "score": pl.Float64,
}
"""By latent, template and scale; random directions have the latents -1, -2, …"""
TEXTS: Schema = {
    "latent": pl.Int32,
    "template": pl.Int32,
    "scale": pl.Float64,
    "score": pl.Float64,
    "variety": pl.Float64,
    "text": pl.String,
}


class Place(NamedTuple):
    """Where directions are put in and looked at.

    Attributes:
        layer: at whose input they are put in.
        kind: whether they replace what is there.
        norm: what a scale of 1 is, in units of the stream.
        probe: the hook at which the stream is compared with them.
        bias: what an adapter adds to them, in the units of `patching.Injection`.
    """

    layer: int
    kind: EditKind
    norm: float
    probe: str
    bias: Float[Tensor, " d_model"] | None = None


class ReadOuts(NamedTuple):
    """Of every direction at one scale of one template.

    Attributes:
        entropy: of what is said next, nats.
        self_similarity: cosine of the stream at the probe's hook, where the next word is said, with
            the direction.
        contrast: Kullback-Leibler divergence, nats, of what is said next from the mean over random
            directions; of a random one from the mean over the others.
    """

    entropy: Float[Tensor, " directions"]
    self_similarity: Float[Tensor, " directions"]
    contrast: Float[Tensor, " directions"]


def random_directions(count: int, d_model: int, seed: int) -> Float[Tensor, "count d_model"]:
    """Unit directions that mean nothing."""
    generator = torch_generator(seed, "labels", "random directions")
    return normalize(torch.randn(count, d_model, generator=generator), dim=1)


def injected(
    directions: Float[Tensor, "rows d_model"], scale: float, place: Place
) -> Float[Tensor, "rows d_model"]:
    """Unit directions at a scale, in the units of `patching.Injection`."""
    vectors = directions * (scale * (place.norm if place.kind == "replace" else 1.0))
    return vectors if place.bias is None else vectors + place.bias.to(vectors.device)


@torch.no_grad()
def read_outs(
    lm: LanguageModel,
    prefix: Prefix,
    directions: Float[Tensor, "rows d_model"],
    random: int,
    scale: float,
    place: Place,
) -> ReadOuts:
    """Put directions at the placeholders of a prompt and read what the model makes of them.

    Args:
        lm: the model.
        prefix: of the prompt.
        directions: unit norm; the first are the random ones.
        random: how many these are: two at least.
        scale: in units of ``place.norm``.
        place: where.
    """
    entropies, similarities, contrasts = [], [], []
    total = torch.zeros(lm.d_vocab, device=lm.device)
    step = max(ROWS_AT_ONCE, random)
    for first in range(0, len(directions), step):
        own = directions[first : first + step].to(lm.device)
        vectors = injected(own, scale, place)
        states, seen = prefix.states(vectors, place.layer, place.kind, [place.probe])
        logs = unembed(lm, states[:, -1]).float().log_softmax(-1)
        here = logs.exp()
        entropies.append(-(here * logs).nan_to_num().sum(-1))
        probed = normalize(seen[place.probe][:, -1].float(), dim=-1)
        similarities.append((probed * normalize(own.float(), dim=-1)).sum(-1))
        if first == 0:
            total = here[:random].sum(0)
        mean = (total / random).expand(len(own), -1)
        if first == 0:  # each random direction is held against the others
            mean = torch.cat([(total - here[:random]) / (random - 1), mean[random:]])
        contrasts.append((here * (logs - mean.clamp_min(1e-12).log())).nan_to_num().sum(-1))
    return ReadOuts(torch.cat(entropies), torch.cat(similarities), torch.cat(contrasts))


LEAST_SPREAD = 1e-3
"""Of random directions' read-outs, in nats or as a cosine: where they are more alike, rounding of
float32 would decide what stands out."""


def calibrated(values: Float[np.ndarray, "... directions"], random: int) -> np.ndarray:
    """Read-outs in standard deviations above those of random directions at the same place.

    Args:
        values: the last axis opens with the random directions.
        random: how many these are.
    """
    null = values[..., :random]
    spread = null.std(axis=-1, ddof=1, keepdims=True)
    return (values - null.mean(axis=-1, keepdims=True)) / np.maximum(spread, LEAST_SPREAD)


class Grid(NamedTuple):
    """Read-outs of all directions at all scales of all templates, and how good each place is.

    Attributes:
        score: mean of the calibrated contrast and self-similarity.
        p: of every direction that is not random, the share of random ones and itself whose best
            score is as good, all calibrated by all of these.
    """

    entropy: Float[np.ndarray, "templates scales directions"]
    self_similarity: Float[np.ndarray, "templates scales directions"]
    contrast: Float[np.ndarray, "templates scales directions"]
    score: Float[np.ndarray, "templates scales directions"]
    random: int

    @property
    def p(self) -> Float[np.ndarray, " latents"]:
        # Random directions are held against a mean and a spread to which they belong, and deviate
        # less for that; a latent stands among them only where it belongs to both, too.
        shares = []
        for latent in range(self.random, self.score.shape[-1]):
            among = [*range(self.random), latent]
            tables = (self.contrast[..., among], self.self_similarity[..., among])
            contrast, similarity = (calibrated(table, len(among)) for table in tables)
            best = (contrast + similarity).max(axis=(0, 1))
            shares.append((best >= best[-1]).mean())
        return np.array(shares)


def look(
    lm: LanguageModel,
    templates: Sequence[Placed],
    directions: Float[Tensor, "latents d_model"],
    random: Float[Tensor, "random d_model"],
    scales: Sequence[float],
    place: Place,
    progress: Callable[[int, int], None] | None = None,
) -> Grid:
    """Read out every direction at every scale of every template.

    Args:
        lm: the model.
        templates: prompts with placeholders.
        directions: unit norm.
        random: unit norm; they are looked at alike.
        scales: in units of ``place.norm``.
        place: where directions are put in.
        progress: told how many places are done.
    """
    every = torch.cat([random, directions]).float()
    tables: list[list[ReadOuts]] = []
    for number, placed in enumerate(templates):
        prefix = Prefix(lm, placed)
        tables.append([])
        for scale in scales:
            tables[-1].append(read_outs(lm, prefix, every, len(random), scale, place))
            if progress:
                progress(number * len(scales) + len(tables[-1]), len(templates) * len(scales))
    entropy, similarity, contrast = (
        np.stack([[getattr(cell, name).cpu().double().numpy() for cell in row] for row in tables])
        for name in ReadOuts._fields
    )
    score = (calibrated(contrast, len(random)) + calibrated(similarity, len(random))) / 2
    return Grid(entropy, similarity, contrast, score, len(random))


def best_places(grid: Grid, latent: int, count: int) -> list[tuple[int, int]]:
    """The best scales of a direction, as (template, scale), the best first; of each scale its best
    template.

    Args:
        grid: from `look`.
        latent: number of the direction, random ones not counted.
        count: how many.
    """
    own = grid.score[:, :, grid.random + latent]
    by_scale = own.argmax(axis=0)
    order = np.argsort(-own.max(axis=0), kind="stable")[:count]
    return [(int(by_scale[scale]), int(scale)) for scale in order]


@torch.no_grad()
def spoken(
    lm: LanguageModel,
    placed: Placed,
    vectors: Float[Tensor, "rows d_model"],
    place: Place,
    new_tokens: int,
) -> list[str]:
    """What the model says behind a prompt, most probable token by token, of vectors that are put
    in.

    Args:
        vectors: in the units of `patching.Injection`.
    """
    texts = []
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        own = vectors[first : first + ROWS_AT_ONCE].to(lm.device)
        rows = torch.tensor([placed.tokens] * len(own), device=lm.device)
        keys = np.zeros(len(own), dtype=np.uint64)
        with patched(lm, placed, own, place.layer, place.kind):
            drawn = generate(lm, rows, None, READ_AT, GREEDY, keys, new_tokens)
        kept = lengths(drawn, lm.end_ids).tolist()
        texts += [
            continuation_text(lm.tokenizer, placed.tokens, tokens[:length])
            for tokens, length in zip(drawn.tolist(), kept, strict=True)
        ]
    return texts


def first_phrase(text: str) -> str:
    """What is said before a line, a sentence or a quotation ends."""
    line = next((part for part in text.splitlines() if part.strip(MARKS)), "").strip(MARKS)
    for end in ('"', "”", ". ", "! ", "? "):
        line = line.split(end)[0] if line.split(end)[0].strip() else line
    return one_line(line.strip(MARKS))


def consensus(texts: Sequence[str], variety: Sequence[float]) -> int:
    """The text that shares most words with the others and does not go round in circles; of equal
    ones the first.

    Args:
        texts: at the best scales.
        variety: of each the share of its pairs of words that are different.
    """
    words = [set(units(text)) for text in texts]
    agreement = np.zeros(len(texts))
    for first, other in combinations(range(len(texts)), 2):
        either = len(words[first] | words[other])
        share = len(words[first] & words[other]) / either if either else 0.0
        agreement[first] += share
        agreement[other] += share
    return int(((1 + agreement) * np.array(variety)).argmax())


def explain(
    lm: LanguageModel,
    templates: Sequence[Placed],
    directions: Float[Tensor, "latents d_model"],
    grid: Grid,
    scales: Sequence[float],
    place: Place,
    best: int,
    new_tokens: int,
    latents: Sequence[int],
) -> pl.DataFrame:
    """What the model says of each direction at its best scales; the columns of `TEXTS`."""
    wanted = [
        (number, *cell)
        for number in range(len(directions))
        for cell in best_places(grid, number, best)
    ]
    rows = []
    for which, placed in enumerate(templates):
        own = [(number, scale) for number, template, scale in wanted if template == which]
        if not own:
            continue
        vectors = torch.stack(
            [injected(directions[number], scales[scale], place) for number, scale in own]
        )
        said = spoken(lm, placed, vectors, place, new_tokens)
        for (number, scale), text in zip(own, said, strict=True):
            score = float(grid.score[which, scale, grid.random + number])
            phrase = first_phrase(text)
            variety = distinct_bigram_share(units(text))
            rows.append((latents[number], which, scales[scale], score, variety, phrase))
    table = pl.DataFrame(rows, schema=TEXTS, orient="row")
    return table.sort("latent", "score", descending=[False, True], maintain_order=True)


def self_labels(
    texts: pl.DataFrame,
    latents: Sequence[int],
    p: Float[np.ndarray, " latents"],
    most: float,
    source: str = "self",
) -> pl.DataFrame:
    """The label of each latent: the text that agrees most with those at its other best scales.

    Args:
        texts: from `explain`.
        latents: which, in the order of ``p``.
        p: from `Grid`.
        most: the share of false labels that may be expected: latents whose p, corrected for their
            number, is larger have no self-explanation, as random directions do as well.
        source: what the labels are called after.

    Returns:
        The columns of `LABELS`; latents without a self-explanation have none.
    """
    own = texts.filter(pl.col("text") != "").partition_by("latent", as_dict=True)
    rows = []
    for latent, chance, q in zip(latents, p.tolist(), q_values(p, "bh").tolist(), strict=True):
        table = own.get((latent,))
        if table is None or q > most:
            continue
        chosen = table.row(
            consensus(table["text"].to_list(), table["variety"].to_list()), named=True
        )
        scale = f"scale {chosen['scale']:.3g}"
        origin = f"{source}, template {chosen['template']}, {scale}, p {chance:.3g}, q {q:.3g}"
        rows.append((latent, source, chosen["text"], origin))
    return pl.DataFrame(rows, schema=LABELS, orient="row")


def read_out_table(grid: Grid, scales: Sequence[float], latents: Sequence[int]) -> pl.DataFrame:
    """The grid as rows, with the columns of `READ_OUTS`."""
    templates, count, directions = grid.score.shape
    names = [*(-1 - number for number in range(grid.random)), *latents]
    shape = (templates, count, directions)
    template, scale, direction = (axis.ravel() for axis in np.indices(shape))
    return pl.DataFrame(
        {
            "latent": np.array(names)[direction],
            "template": template,
            "scale": np.array(scales)[scale],
            "entropy": grid.entropy.ravel(),
            "self_similarity": grid.self_similarity.ravel(),
            "contrast": grid.contrast.ravel(),
            "score": grid.score.ravel(),
        }
    ).select(pl.col(name).cast(kind) for name, kind in READ_OUTS.items())


class SelfExplanations(NamedTuple):
    """What a model said of directions."""

    labels: pl.DataFrame
    texts: pl.DataFrame
    read_outs: pl.DataFrame


def self_explanations(
    lm: LanguageModel,
    decoder: Float[Tensor, "d_sae d_model"],
    latents: Sequence[int],
    blocks: Int[Tensor, "blocks pos"],
    asked: SelfExplanation,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> SelfExplanations:
    """Have a model explain the decoder rows of latents.

    Args:
        lm: the model.
        decoder: rows of all latents.
        latents: which are explained.
        blocks: text, from which the typical norm is taken.
        asked: how.
        seed: of the study.
        progress: told how many scales are done.

    Raises:
        SaeflowError: the model has no such layer, or a template has no placeholder for it.
    """
    templates, where = prepared(lm, blocks, asked)
    return explained_at(lm, templates, decoder, latents, asked.scales, where, asked, seed, progress)


def prepared(
    lm: LanguageModel, blocks: Int[Tensor, "blocks pos"], asked: SelfExplanation
) -> tuple[list[Placed], Place]:
    """The prompts, and where directions are put in; raises as `self_explanations` does."""
    for key, layer in (("layer", asked.layer), ("probe", asked.probe or 0)):
        if layer >= lm.n_layers:
            raise SaeflowError(
                f"labels.self_explanation.{key}: {layer} does not exist; the model has layers 0 to "
                f"{lm.n_layers - 1}"
            )
    probe = max(lm.n_layers - 2, 0) if asked.probe is None else asked.probe
    norm = typical_norm(lm, blocks.to(lm.device), asked.layer)
    templates = [
        place(lm, template, f"labels.self_explanation.templates.{number}")
        for number, template in enumerate(asked.templates)
    ]
    return templates, Place(asked.layer, asked.edit, norm, f"blocks.{probe}.hook_resid_post")


def explained_at(
    lm: LanguageModel,
    templates: Sequence[Placed],
    decoder: Float[Tensor, "d_sae d_model"],
    latents: Sequence[int],
    scales: Sequence[float],
    where: Place,
    asked: SelfExplanation,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    source: str = "self",
) -> SelfExplanations:
    """What a model says of decoder rows at some scales of a place."""
    rows = decoder[torch.tensor(latents, device=decoder.device)].float().cpu()
    directions = normalize(rows, dim=1)
    random = random_directions(asked.random, lm.d_model, seed)
    grid = look(lm, templates, directions, random, scales, where, progress)
    texts = explain(
        lm, templates, directions, grid, scales, where, asked.best, asked.new_tokens, latents
    )
    return SelfExplanations(
        self_labels(texts, latents, grid.p, asked.chance, source),
        texts,
        read_out_table(grid, scales, latents),
    )
