"""How well few decoder rows add up to a direction, beside directions that mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.decomposition.directions import Direction
from saeflow.analyses.directions.placing import ContrastRows
from saeflow.pursuits.dictionary import NOTHING, Decomposition, Dictionary, prefix_sums
from saeflow.pursuits.greedy import orthogonal, refit
from saeflow.pursuits.methods import PURSUITS, Pursuit
from saeflow.seeds import numpy_generator, torch_generator

if TYPE_CHECKING:
    from saeflow.analyses.decomposition.settings import PursuitCurves
    from saeflow.saes.sae import SAE

Kind = Literal["direction", "random", "shuffled"]
CURVES = {
    "direction": pl.String,
    "kind": pl.String,
    "method": pl.String,
    "k": pl.Int32,
    "error": pl.Float64,
    "error_low": pl.Float64,
    "error_high": pl.Float64,
    "cosine": pl.Float64,
    "cosine_low": pl.Float64,
    "cosine_high": pl.Float64,
    "draws": pl.Int32,
}
"""``kind``: the ``direction`` itself, or the mean over ``draws`` directions that mean nothing with
the band that holds most of them: ``random`` ones, the same for every direction (its name is empty),
or ``shuffled``, of the direction's own texts with their labels exchanged."""
LATENTS = {
    "direction": pl.String,
    "method": pl.String,
    "place": pl.Int32,
    "latent": pl.Int32,
    "weight": pl.Float64,
    "cosine": pl.Float64,
    "chosen": pl.Float64,
    "difference": pl.Float64,
    "density": pl.Float64,
}
"""The sum of as many latents as are listed: ``cosine`` of the decoder row with the direction,
``chosen`` the share of bootstraps of the texts in which the method chooses the latent, too, the
``difference`` of its mean value between the texts, and the ``density``, the share of tokens of the
study's corpus on which it fires."""
STABILITY = {
    "direction": pl.String,
    "k": pl.Int32,
    "overlap": pl.Float64,
    "overlap_low": pl.Float64,
    "overlap_high": pl.Float64,
    "cosine": pl.Float64,
    "draws": pl.Int32,
}
"""Latents of `orthogonal` for bootstraps of the texts: ``overlap`` is the share of all latents of
both sums that are in both (Jaccard), ``cosine`` that of the bootstrapped direction with the
direction."""
ENCODER = {
    "direction": pl.String,
    "reading": pl.String,
    "norm": pl.Float64,
    "active": pl.Int32,
    "of_bias": pl.Int32,
    "from_direction": pl.Float64,
    "from_bias": pl.Float64,
    "negative": pl.Float64,
    "error": pl.Float64,
    "cosine": pl.Float64,
}
"""What the encoder makes of a direction, as it is or as long as an activation: latents that are
``active``, those of them that are active on zero as well, the root mean square over latents of what
the direction and the bias add to the encoder's input, the share of `orthogonal`'s squared weights
that is ``negative``, which no encoder tells, and how far the decoded latents are from the
direction."""
READINGS = ("as it is", "as long as an activation")


class Subject(NamedTuple):
    """An SAE that directions are decomposed in."""

    sae: SAE
    dictionary: Dictionary
    """Its decoder."""
    mean_norm: float
    """Of the activations that it reads."""
    seed: int
    """Of the study."""


def curve_table(
    subject: Subject,
    directions: Sequence[Direction],
    settings: PursuitCurves,
    activations: Dictionary | None = None,
) -> pl.DataFrame:
    """Error and cosine by number of latents, of every direction and of what it is held against.

    Args:
        subject: the SAE.
        directions: what is decomposed.
        settings: how.
        activations: a dictionary of activations, which the method ``itda`` takes its atoms from.
    """
    parts = [pl.DataFrame(schema=CURVES)]
    ways: list[tuple[str, Pursuit, Dictionary]] = [
        (method, PURSUITS[method], subject.dictionary) for method in settings.pursuits
    ]
    ways += [("itda", orthogonal, activations)] if activations else []
    for method, pursue, dictionary in ways:
        for name, kind, vectors in _held_against(subject, directions, settings):
            sums = pursue(vectors, dictionary, settings.latents)
            parts.append(_curve(name, kind, method, sums, settings.level))
    for direction in directions:
        for suggested, sums in _of_the_sae(subject, direction, settings.latents):
            parts.append(_curve(direction.name, "direction", suggested, sums, settings.level))
    return pl.concat(parts)


def _held_against(
    subject: Subject, directions: Sequence[Direction], settings: PursuitCurves
) -> Iterator[tuple[str, Kind, Float[Tensor, "n d_model"]]]:
    """Directions, and those that mean nothing: their name and kind, and the vectors."""
    if settings.random:
        yield "", "random", random_directions(subject.dictionary, settings.random, subject.seed)
    for direction in directions:
        yield direction.name, "direction", direction.vector.unsqueeze(0)
        if direction.rows and settings.shuffled:
            name, draws = direction.name, settings.shuffled
            yield name, "shuffled", shuffled_differences(direction.rows, draws, subject.seed, name)


def _of_the_sae(
    subject: Subject, direction: Direction, k: int
) -> Iterator[tuple[str, Decomposition]]:
    """Sums that the SAE itself suggests: its encoder, and latents that differ between the texts
    most, with their differences as weights and with weights of least squares."""
    vector, dictionary = direction.vector.unsqueeze(0), subject.dictionary
    read = subject.sae.encode(vector.to(subject.sae.W_enc))
    yield "encoder", prefix_sums(vector, dictionary, *_largest(read, k))
    if direction.rows:
        difference = latent_difference(subject.sae, direction.rows).unsqueeze(0)
        latents, weights = _largest(difference, k)
        yield "difference", prefix_sums(vector, dictionary, latents, weights)
        yield "difference_refit", refit(vector, dictionary, latents)


def _largest(values: Float[Tensor, "n d_sae"], k: int) -> tuple[Tensor, Tensor]:
    """The latents of largest magnitude, and their values; those that are zero are none."""
    order = values.abs().argsort(dim=1, descending=True, stable=True)[:, :k]
    chosen = values.gather(1, order)
    return torch.where(chosen != 0, order, NOTHING), chosen


def _curve(name: str, kind: Kind, method: str, sums: Decomposition, level: float) -> pl.DataFrame:
    draws, k = sums.error.shape
    table: dict[str, object] = {"k": range(1, k + 1)}
    for field in ("error", "cosine"):
        values = getattr(sums, field).cpu().numpy()
        table[field] = values.mean(0)
        if kind != "direction":
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
            table |= {f"{field}_low": low, f"{field}_high": high}
        else:
            table |= {f"{field}_{end}": [None] * k for end in ("low", "high")}
    named = {"direction": name, "kind": kind, "method": method, "draws": draws}
    return (
        pl.DataFrame(table)
        .with_columns(**{key: pl.lit(v) for key, v in named.items()})
        .select(pl.col(column).cast(dtype) for column, dtype in CURVES.items())
    )


def random_directions(
    dictionary: Dictionary, draws: int, seed: int
) -> Float[Tensor, "draws d_model"]:
    """Directions that nothing distinguishes."""
    generator = torch_generator(seed, "decomposition", "random")
    width = dictionary.atoms.shape[1]
    return torch.randn(draws, width, generator=generator, dtype=torch.float64)


def shuffled_differences(
    rows: ContrastRows, draws: int, seed: int, name: str
) -> Float[Tensor, "draws d_model"]:
    """Differences of means with the texts' labels shuffled."""
    generator = numpy_generator(seed, "decomposition", "shuffled", name)
    labels = np.stack([generator.permutation(rows.positive.numpy()) for _ in range(draws)])
    return torch.stack(
        [rows._replace(positive=torch.from_numpy(each)).difference for each in labels]
    )


def bootstrap_weights(
    rows: ContrastRows, draws: int, seed: int, *purpose: str
) -> Float[Tensor, "draws texts"]:
    """What each text counts in a difference of means, for draws of the texts of either class."""
    generator = numpy_generator(seed, "decomposition", "bootstrap", *purpose)
    weights = torch.zeros(draws, len(rows.positive), dtype=torch.float64)
    for sign, own in ((1.0, rows.positive), (-1.0, ~rows.positive)):
        n = int(own.sum())
        counts = generator.multinomial(n, np.full(n, 1 / n), size=draws)
        weights[:, own] = sign * torch.from_numpy(counts / n)
    return weights


@torch.no_grad()
def latent_difference(sae: SAE, rows: ContrastRows) -> Float[Tensor, " d_sae"]:
    """The mean value of every latent on the positive texts less that on the others, float64."""
    values = sae.encode(rows.activations.to(sae.W_enc)).double().cpu()
    return values[rows.positive].mean(0) - values[~rows.positive].mean(0)


def latent_table(
    subject: Subject,
    directions: Sequence[Direction],
    settings: PursuitCurves,
    density: Float[Tensor, " d_sae"],
) -> pl.DataFrame:
    """The latents that each pursuit lists for each direction.

    Args:
        subject: the SAE.
        directions: what is decomposed.
        settings: the pursuits.
        density: share of tokens on which each latent fires.
    """
    parts = [pl.DataFrame(schema=LATENTS)]
    for direction in directions:
        unit = direction.vector / direction.vector.norm()
        cosines = subject.dictionary.cosines(unit.unsqueeze(0))[0].double().cpu()
        difference = latent_difference(subject.sae, direction.rows) if direction.rows else None
        resampled = _resampled(subject, direction, settings.bootstrap)
        for method in settings.pursuits:
            pursue = PURSUITS[method]
            sums = pursue(direction.vector.unsqueeze(0), subject.dictionary, settings.listed)
            latents = sums.atoms[0, -1].cpu()
            weights = sums.weights[0, -1].cpu()[latents >= 0]
            latents = latents[latents >= 0]
            chosen = [None] * len(latents)
            if resampled is not None:
                again = pursue(resampled, subject.dictionary, settings.listed).atoms[:, -1].cpu()
                hits = (again.unsqueeze(2) == latents).any(1)
                chosen = hits.double().mean(0).tolist()
            table = {
                "direction": [direction.name] * len(latents),
                "method": [method] * len(latents),
                "place": range(1, len(latents) + 1),
                "latent": latents.numpy(),
                "weight": weights.numpy(),
                "cosine": cosines[latents].numpy(),
                "chosen": chosen,
                "difference": [None] * len(latents)
                if difference is None
                else difference[latents].numpy(),
                "density": density[latents].numpy(),
            }
            parts.append(pl.DataFrame(table, schema=LATENTS))
    return pl.concat(parts)


def _resampled(
    subject: Subject, direction: Direction, draws: int
) -> Float[Tensor, "draws d_model"] | None:
    """The direction from bootstraps of its texts."""
    if direction.rows is None or not draws:
        return None
    weights = bootstrap_weights(direction.rows, draws, subject.seed, direction.name)
    return weights @ direction.rows.activations.double()


def stability_table(
    subject: Subject, directions: Sequence[Direction], settings: PursuitCurves
) -> pl.DataFrame:
    """How much the latents of a direction depend on which texts it was made of."""
    parts = [pl.DataFrame(schema=STABILITY)]
    for direction in directions:
        resampled = _resampled(subject, direction, settings.bootstrap)
        if resampled is None:
            continue
        whole = orthogonal(direction.vector.unsqueeze(0), subject.dictionary, settings.listed)
        draws = orthogonal(resampled, subject.dictionary, settings.listed)
        cosine = torch.cosine_similarity(resampled, direction.vector.unsqueeze(0)).mean().item()
        rows = []
        for k in range(1, settings.listed + 1):
            overlaps = _overlaps(draws.atoms[:, k - 1, :k], whole.atoms[0, k - 1, :k])
            low, high = np.quantile(overlaps, [(1 - settings.level) / 2, (1 + settings.level) / 2])
            rows.append((direction.name, k, overlaps.mean(), low, high, cosine, len(overlaps)))
        parts.append(pl.DataFrame(rows, schema=STABILITY, orient="row"))
    return pl.concat(parts)


def _overlaps(draws: Tensor, whole: Tensor) -> Float[np.ndarray, " draws"]:
    original = set(whole.tolist()) - {NOTHING}
    sets = [set(draw) - {NOTHING} for draw in draws.tolist()]
    return np.array([len(own & original) / max(len(own | original), 1) for own in sets])


@torch.no_grad()
def encoder_table(
    subject: Subject, directions: Sequence[Direction], settings: PursuitCurves
) -> pl.DataFrame:
    """What the encoder makes of directions, and why it is not what they are made of."""
    sae, rows = subject.sae, []
    at_zero = sae.encode(torch.zeros_like(sae.b_dec).unsqueeze(0))[0] > 0
    bias = sae.b_enc.double().square().mean().sqrt().item()
    for direction in directions:
        sums = orthogonal(direction.vector.unsqueeze(0), subject.dictionary, settings.latents)
        squares = sums.weights[0, -1].square()
        negative = (squares * (sums.weights[0, -1] < 0)).sum() / squares.sum().clamp_min(1e-300)
        length = direction.vector.norm()
        for reading in READINGS:
            norm = length.item() if reading == READINGS[0] else subject.mean_norm
            exact = (direction.vector * (norm / length)).to(sae.W_enc.device)
            vector = exact.unsqueeze(0).to(sae.W_enc)
            values = sae.encode(vector)
            decoded = (values.double() @ sae.W_dec.double())[0]
            off = (decoded - exact).square().sum() / norm**2
            cosine = torch.cosine_similarity(decoded, exact, dim=0)
            rows.append(
                (
                    direction.name,
                    reading,
                    norm,
                    int((values > 0).sum()),
                    int(((values[0] > 0) & at_zero).sum()),
                    (vector @ sae.W_enc).double().square().mean().sqrt().item(),
                    bias,
                    negative.item(),
                    off.item(),
                    cosine.item(),
                )
            )
    return pl.DataFrame(rows, schema=ENCODER, orient="row")
