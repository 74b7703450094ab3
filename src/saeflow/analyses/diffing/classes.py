"""To which of two models every latent of a crosscoder belongs, and how sure that is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int64

from saeflow.analyses.diffing.scaling import BASE, TUNED, Pass
from saeflow.analyses.diffing.settings import Classes
from saeflow.analyses.diffing.words import CLASSES
from saeflow.seeds import numpy_generator
from saeflow.statistics.means import seen_weights

NAMES = list(CLASSES)
SIDES = ["base", "tuned"]

LATENTS = {
    "model": pl.String,
    "latent": pl.Int64,
    "class": pl.String,
    "sure": pl.Float64,
    "owner": pl.String,
    "density": pl.Float64,
    "density_base": pl.Float64,
    "density_tuned": pl.Float64,
    "relative_norm": pl.Float64,
    "cosine": pl.Float64,
    "nu_error_base": pl.Float64,
    "nu_error_tuned": pl.Float64,
    "nu_reconstruction_base": pl.Float64,
    "nu_reconstruction_tuned": pl.Float64,
    "contribution": pl.Float64,
}
OF_TWO = (
    *("density_base", "density_tuned", "relative_norm", "cosine"),
    *("nu_error_base", "nu_error_tuned", "nu_reconstruction_base", "nu_reconstruction_tuned"),
)
"""What only latents that are read from and written to either model have."""
COUNTS = {
    "model": pl.String,
    "class": pl.String,
    "count": pl.Int64,
    "low": pl.Float64,
    "high": pl.Float64,
    "density": pl.Float64,
    "cosine": pl.Float64,
    "contribution": pl.Float64,
}


class Norms(NamedTuple):
    """What decoders alone tell of latents.

    Attributes:
        relative: the tuned model's share of the two norms, each in units of the spread of that
            model's activations.
        elsewhere: the share of all sources of other models, of all norms.
        cosine: between the two models' directions.
        difference: squared norm of the tuned model's direction less the base's, in the activations'
            own units.
    """

    relative: Float64[np.ndarray, " d_sae"]
    elsewhere: Float64[np.ndarray, " d_sae"]
    cosine: Float64[np.ndarray, " d_sae"]
    difference: Float64[np.ndarray, " d_sae"]


def norms(measured: Pass) -> Norms:
    """What the decoders of a crosscoder tell of two of its models."""
    crosscoder, sides = measured.crosscoder, measured.sides
    rows = sides.of((crosscoder.W_dec / crosscoder.scale[:, None]).double())
    lengths = rows.norm(dim=-1)
    shares = crosscoder.relative_norms().double()
    pair = torch.tensor([*sides.base, *sides.tuned], device=shares.device)
    raw = sides.of(crosscoder.W_dec.double())
    values = (
        lengths[:, TUNED] / lengths.sum(1),
        1 - shares[:, pair].sum(1),
        (rows[:, BASE] * rows[:, TUNED]).sum(1) / lengths.prod(1),
        (raw[:, TUNED] - raw[:, BASE]).square().sum(1),
    )
    return Norms(*(value.cpu().numpy() for value in values))


def classify(
    decoders: Norms,
    nu_error: Float64[np.ndarray, "d_sae 2"],
    nu_reconstruction: Float64[np.ndarray, "d_sae 2"],
    alive: np.ndarray,
    bounds: Classes,
    of_difference: bool = False,
) -> Int64[np.ndarray, " d_sae"]:
    """The class of every latent, as its place in `CLASSES`.

    A latent whose norms say that one model owns it is that model's only if both ν of the other are
    below their bounds; a ν that is not defined is above.

    Args:
        decoders: what norms say.
        nu_error, nu_reconstruction: by owner, of the other model.
        alive: whether it fires.
        bounds: of the classes.
        of_difference: whether latents are of the difference, and so of neither model.
    """
    owner = (decoders.relative > 0.5).astype(np.int64)
    every = np.arange(len(owner))
    least = np.minimum(decoders.relative, 1 - decoders.relative)
    from_error = ~(nu_error[every, owner] <= bounds.nu_error)
    from_others = ~(nu_reconstruction[every, owner] <= bounds.nu_reconstruction)
    conditions = {
        "dead": ~alive,
        "difference": np.full(len(owner), of_difference),
        "elsewhere": decoders.elsewhere > 1 - bounds.exclusive,
        "shared": least >= bounds.shared,
        "leaning": least > bounds.exclusive,
        "shrunk": from_error,
        "decoupled": from_others,
        "base_only": owner == BASE,
        "tuned_only": owner == TUNED,
    }
    places = [np.int64(NAMES.index(name)) for name in conditions]
    return np.select(list(conditions.values()), places)


def class_tables(
    measured: Pass, model: str, bounds: Classes, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All latents with their classes, and how many there are of each class.

    Intervals are over resamples of the text: its parts are weighed at random, and ν and classes
    follow anew. What never fires is taken as it was seen, and so are the decoders.

    Args:
        measured: sums over the text.
        model: the name of the compared one.
        bounds: of the classes, and the number of resamples.
        seed: of the study.

    Returns:
        The columns of `LATENTS`: ``sure`` is the share of resamples in which a latent has the same
        class, ``contribution`` the mean square of what it adds to the difference of the models, per
        token; and those of `COUNTS`, where density and cosine are medians and contribution is the
        sum.
    """
    decoders, alive = norms(measured), measured.fired.sum(0) > 0
    of_difference = measured.crosscoder.of_difference
    nu_error, nu_reconstruction = measured.scaling().ratios()
    classes = classify(decoders, nu_error, nu_reconstruction, alive, bounds, of_difference)
    generator = numpy_generator(seed, "diffing", "classes")
    weights = seen_weights(len(measured.rows), bounds.draws, generator)
    same = np.zeros(len(classes))
    counts = np.empty((bounds.draws, len(NAMES)))
    for number, weight in enumerate(weights):
        ratios = measured.scaling(weight).ratios()
        drawn = classify(decoders, *ratios, alive, bounds, of_difference)
        same += drawn == classes
        counts[number] = np.bincount(drawn, minlength=len(NAMES))
    if np.isnan(weights).any():  # a single part of the text: nothing to resample
        same[:], counts[:] = np.nan, np.nan
    total = measured.rows.sum()
    density = measured.fired.sum(0) / total
    alone = measured.fired_alone.sum(0) / total
    neither = ("shared", "elsewhere", "difference", "dead")
    unowned = np.isin(classes, [NAMES.index(name) for name in neither])
    latents = pl.DataFrame(
        {
            "model": [model] * len(classes),
            "latent": np.arange(len(classes)),
            "class": [NAMES[place] for place in classes],
            "sure": same / bounds.draws,
            "owner": [
                None if without else SIDES[int(relative > 0.5)]
                for without, relative in zip(unowned, decoders.relative, strict=True)
            ],
            "density": density,
            "density_base": alone[:, BASE],
            "density_tuned": alone[:, TUNED],
            "relative_norm": decoders.relative,
            "cosine": decoders.cosine,
            "nu_error_base": nu_error[:, BASE],
            "nu_error_tuned": nu_error[:, TUNED],
            "nu_reconstruction_base": nu_reconstruction[:, BASE],
            "nu_reconstruction_tuned": nu_reconstruction[:, TUNED],
            "contribution": measured.energy.sum(0) / total * decoders.difference,
        },
        schema=LATENTS,
    ).with_columns(pl.selectors.float().fill_nan(None))
    if of_difference:
        latents = latents.with_columns(pl.lit(None, pl.Float64).alias(name) for name in OF_TWO)
    return latents, _counted(latents, counts, bounds, model)


def _counted(
    latents: pl.DataFrame,
    counts: Float64[np.ndarray, "draws classes"],
    bounds: Classes,
    model: str,
) -> pl.DataFrame:
    tails = (1 - bounds.level) / 2, (1 + bounds.level) / 2
    rows = []
    for place, name in enumerate(NAMES):
        own = latents.filter(pl.col("class") == name)
        low, high = np.quantile(counts[:, place], tails)
        medians = (own["density"].median(), own["cosine"].median())
        total = own["contribution"].sum()
        row = (model, name, len(own), min(low, len(own)), max(high, len(own)), *medians, total)
        rows.append(row)
    table = pl.DataFrame(rows, schema=COUNTS, orient="row")
    return table.with_columns(pl.col("low", "high").fill_nan(None))
