"""Figures in the space of latents: effects of steering vectors, predicted and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from jaxtyping import Float

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import EQUALITY, canvas, no_data, panels, styled, words
from saeflow.palette import BLUE, GREY, ORANGE, PURPLE, SKY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
CELLS = 110
STATUSES = {
    "ok": ("reached the wanted loss", BLUE),
    "never_reached": ("stopped at the largest scale", VERMILLION),
    "clamped": ("lowered to the largest scale", ORANGE),
    "above_at_zero": ("loss too high without steering", PURPLE),
    "zero_vector": ("the vector is zero", SKY),
    "imported": ("published, how is not told", GREY),
}
"""How a search for a scale can end, in words, with its colour."""
DENSITY: dict[str, Any] = {
    "cmap": "cividis_r",
    "origin": "lower",
    "interpolation": "nearest",
    "zorder": 1,
}
LARGEST: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "markersize": 3.5,
    "markerfacecolor": "none",
    "markeredgecolor": VERMILLION,
    "markeredgewidth": 0.7,
    "alpha": 0.7,
}


def density(
    predictions: pl.DataFrame, metrics: pl.DataFrame, settings: Figures = DEFAULT
) -> pl.DataFrame:
    """How many pairs of predicted and measured effect fall into each cell of a square grid, and the
    largest effects.

    Args:
        predictions: latent, predicted, measured, kind (``sample``: drawn at random; ``top``: among
            the largest measured effects of its vector).
        metrics: r2 and r2_ceiling over all held-out effects, where they are known.

    Returns:
        kind (``cell`` or ``top``), predicted, measured (a cell's middle or one effect), width (of a
        cell), count, and the same on every row: pairs, r2, r2_ceiling (null if not known).
    """
    if predictions.is_empty():
        return pl.DataFrame()
    pairs = predictions.drop_nulls(["predicted", "measured"]).filter(pl.col("kind") == "sample")
    predicted, measured = (
        pairs[name].cast(pl.Float64).to_numpy() for name in ("predicted", "measured")
    )
    if not len(pairs):
        return pl.DataFrame()
    top = predictions.drop_nulls(["predicted", "measured"]).filter(pl.col("kind") == "top")
    either = np.concatenate(
        [predicted, measured, *(top[name].to_numpy() for name in ("predicted", "measured"))]
    )
    low, high = float(either.min()), float(either.max())
    edges = np.linspace(low, high if high > low else low + 1.0, CELLS + 1)
    counts, _, _ = np.histogram2d(predicted, measured, bins=(edges, edges))
    middles, (i, j) = (edges[1:] + edges[:-1]) / 2, np.nonzero(counts)
    cells = pl.DataFrame(
        {"predicted": middles[i], "measured": middles[j], "count": counts[i, j].astype(np.int64)}
    )
    largest = top.select(
        pl.col("predicted", "measured").cast(pl.Float64), count=pl.lit(1, pl.Int64)
    )
    kinds = [cells.with_columns(kind=pl.lit("cell")), largest.with_columns(kind=pl.lit("top"))]
    same = {
        "width": float(edges[1] - edges[0]),
        "pairs": len(pairs),
        "r2": _r2(metrics, predicted, measured),
    }
    ceiling = metrics["r2_ceiling"][0] if "r2_ceiling" in metrics.columns else None
    rows = pl.concat(kinds).with_columns(pl.lit(value).alias(name) for name, value in same.items())
    return rows.with_columns(r2_ceiling=pl.lit(ceiling, pl.Float64))


@styled
def effects_predicted_measured(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Measured against predicted effects of vectors that the approximator was not fitted on.

    Args:
        rows: from ``density``.
    """
    if rows.is_empty():
        return no_data(settings, "no held-out effect has been predicted")
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogFormatter

    figure = canvas(min(settings.width, 6.6), 5.2, settings)
    panel = figure.subplots()
    grid, frame = _grid(rows.filter(pl.col("kind") == "cell"))
    norm = LogNorm(vmin=1, vmax=max(2, int(np.nanmax(grid))))
    picture = panel.imshow(grid, norm=norm, extent=frame, **DENSITY)
    panel.plot(frame[:2], frame[2:], zorder=0.9, **EQUALITY)
    top = rows.filter(pl.col("kind") == "top")
    panel.plot(
        top["predicted"],
        top["measured"],
        label="largest measured effects of each vector",
        **LARGEST,
    )
    if len(top):
        panel.legend(loc="lower right")
    panel.use_sticky_edges = False
    panel.margins(0.03)
    panel.autoscale()
    panel.set(
        xlabel="predicted change of mean activation", ylabel="measured change of mean activation"
    )
    panel.set_title(_fit(rows).replace("; ", "\n"), fontweight="normal")
    figure.colorbar(
        picture, ax=panel, label="pairs of vector and latent", shrink=0.85, format=LogFormatter()
    )
    return figure


def effects_predicted_measured_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return "No data: no held-out effect has been predicted."
    return (
        "Density of measured against predicted effects of held-out vectors, with the line of "
        f"equality. {_fit(rows)}."
    )


def scales(effects: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Scale and status of every vector whose effects were measured."""
    return effects if effects.is_empty() else effects.select("scale", "status")


@styled
def effect_scales(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """The scales at which effects were measured, coloured by how the search for the scale ended.

    Args:
        rows: from ``scales``, one row per steering vector.
    """
    counts = _statuses(rows)
    if not counts:
        return no_data(settings, "no effect has been measured")
    figure, (panel,) = panels(1, settings, height=2.4, columns=1)
    groups = [
        rows.filter(pl.col("status") == status)["scale"].drop_nulls().to_numpy()
        for status in counts
    ]
    looks = [STATUSES.get(status, (words(status), GREY)) for status in counts]
    labels = [
        f"{label} ({count})" for (label, _), count in zip(looks, counts.values(), strict=True)
    ]
    colours = [colour for _, colour in looks]
    panel.hist(
        groups, bins=40, stacked=True, color=colours, label=labels, edgecolor="white", linewidth=0.4
    )
    panel.set(xlabel="scale, length of what is added", ylabel="steering vectors")
    panel.grid(axis="x", visible=False)
    panel.legend(loc="best")
    return figure


def effect_scales_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    counts = _statuses(rows)
    if not counts:
        return "No data: no effect has been measured."
    endings = ", ".join(
        f"{STATUSES.get(status, (words(status),))[0]}: {count}" for status, count in counts.items()
    )
    median = float(np.median(rows["scale"].drop_nulls().to_numpy()))
    return (
        f"Histogram of the scales of {len(rows)} steering vectors; median {median:.3g}. How the "
        f"search ended: {endings}."
    )


def _statuses(rows: pl.DataFrame) -> dict[str, int]:
    """The statuses and how many vectors have each, the most frequent first."""
    if rows.is_empty():
        return {}
    counts = rows.drop_nulls(["scale", "status"]).group_by("status").len()
    return dict(counts.sort("len", "status", descending=[True, False]).iter_rows())


def _grid(
    cells: pl.DataFrame,
) -> tuple[Float[np.ndarray, "measured predicted"], tuple[float, float, float, float]]:
    """The counts as a picture, NaN where there is none, and its frame."""
    middles = [cells[name].to_numpy() for name in ("predicted", "measured")]
    width = float(cells["width"][0])
    low = min(float(values.min()) for values in middles) - width / 2
    high = max(float(values.max()) for values in middles) + width / 2
    size = round((high - low) / width)
    column, row = (((values - low) / width).astype(int).clip(0, size - 1) for values in middles)
    grid = np.full((size, size), np.nan)
    grid[row, column] = cells["count"].to_numpy()
    return grid, (low, high, low, high)


def _r2(
    metrics: pl.DataFrame,
    predicted: Float[np.ndarray, " pairs"],
    measured: Float[np.ndarray, " pairs"],
) -> float | None:
    """The share of variance explained: over all held-out effects where that is known, else over the
    sample."""
    if "r2" in metrics.columns:
        return float(metrics["r2"][0])
    spread = float(((measured - measured.mean()) ** 2).sum())
    return 1 - float(((measured - predicted) ** 2).sum()) / spread if spread > 0 else None


def _fit(rows: pl.DataFrame) -> str:
    r2, ceiling, pairs = rows["r2"][0], rows["r2_ceiling"][0], rows["pairs"][0]
    fit = f"R² {'undefined' if r2 is None else f'= {r2:.3f}'}"
    noise = "" if ceiling is None else f" (noise leaves about {ceiling:.3f})"
    return f"{fit}{noise}; {pairs:,} pairs of held-out vector and latent drawn"


FIGURES = (
    Figure(
        name="effects_predicted_measured",
        tables=("effects/{target_sae}/predictions.parquet", "effects/{target_sae}/metrics.json"),
        rows=density,
        draw=effects_predicted_measured,
        alt=effects_predicted_measured_alt,
        title="Can effects be predicted",
        caption="An effect is how much steering with a vector changes the mean activation of a "
        "latent. The approximator predicts it from the vector alone; here for vectors it has not "
        "seen. The colour of a cell tells how many pairs it holds, circles are the largest effects "
        "of each vector, and on the dashed line prediction equals measurement. R² is the share of "
        "the variance of effects that is predicted: 1 is perfect, 0 is no better than the mean. No "
        "map predicts the noise of the measurement, which leaves a share below 1.",
        section="effects",
    ),
    Figure(
        name="effect_scales",
        tables=("effects/{target_sae}/effects.h5",),
        rows=scales,
        draw=effect_scales,
        alt=effect_scales_alt,
        title="Scales at which effects were measured",
        caption="Every steering vector is added with the scale that harms the model's loss by a "
        "set amount, so that effects of different vectors can be compared. The colour tells how "
        "the search for that scale ended.",
        section="effects",
    ),
)
