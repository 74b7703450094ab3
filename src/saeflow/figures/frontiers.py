"""The figure of many SAEs: what each keeps of the activations and of the predictions, at how many
active latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, strokes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NONE = "no SAE was measured"
_MARKERS = "osD^vPX*"


def frontier(saes: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """SAEs with the series that each is a point of: those that read and write the same and differ
    in sparsity alone."""
    if saes.is_empty():
        return saes
    several = saes["reads"].n_unique() > 1 or saes["writes"].n_unique() > 1
    place = (
        pl.when(pl.col("kind") == "transcoder")
        .then(pl.format("{} to {}", "reads", "writes"))
        .when(pl.col("kind") == "difference")
        .then(pl.format("the difference of {}", "reads"))
        .otherwise("reads")
    )
    width = (
        pl.when(pl.col("d_sae").is_null())
        .then(pl.lit(""))
        .otherwise(pl.format(", {} latents", "d_sae"))
    )
    control = pl.concat_str(pl.lit(", "), pl.col("control").str.replace_all("_", " "))
    named = pl.concat_str("architecture", control.fill_null(""), width)
    return saes.with_columns(
        series=pl.concat_str(named, pl.lit(" at "), place) if several else named
    )


@styled
def sae_frontier(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Explained variance and recovered loss against L0, a line per series.

    Args:
        rows: from ``frontier``: series, l0, explained_variance, recovered, each with its standard
            error.
    """
    drawn = rows if rows.is_empty() else rows.drop_nulls("l0")
    if drawn.is_empty():
        return no_data(settings, NONE)
    figure, (left, right) = panels(2, settings, height=2.8, share_y=False)
    names = drawn["series"].unique(maintain_order=True).to_list()
    handles = []
    for index, (name, look) in enumerate(zip(names, strokes(len(names)), strict=True)):
        line, marker = (
            drawn.filter(pl.col("series") == name).sort("l0"),
            _MARKERS[index % len(_MARKERS)],
        )
        style = {"color": look.color, "linestyle": look.linestyle, "marker": marker}
        for panel, column in ((left, "explained_variance"), (right, "recovered")):
            _points(panel, line.drop_nulls(column), column, style)
        handles.append(legend_entry(label=name, **style))
    left.set(title="explained variance", xlabel="L0: active latents per token")
    right.set(title="loss recovered", xlabel="L0: active latents per token")
    legend(figure, handles)
    return figure


def sae_frontier_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    measured = [] if rows.is_empty() else rows.drop_nulls(["l0", "explained_variance"]).to_dicts()
    if not measured:
        return f"No data: {NONE}."
    points = (
        f"{row['sae']}: L0 {row['l0']:.1f}, explained variance {row['explained_variance']:.3f}"
        for row in measured
    )
    return f"Charts of explained variance and recovered loss against L0. {'; '.join(points)}."


def _points(panel: Axes, line: pl.DataFrame, column: str, style: dict[str, object]) -> None:
    errors = [line[f"{name}_se"].fill_null(0.0).fill_nan(0.0) for name in (column, "l0")]
    panel.errorbar(
        line["l0"],
        line[column],
        yerr=errors[0],
        xerr=errors[1],
        capsize=2,
        elinewidth=0.8,
        **style,  # type: ignore[arg-type]
    )


FIGURES = (
    Figure(
        name="sae_frontier",
        tables=("saes/summary.parquet",),
        rows=frontier,
        draw=sae_frontier,
        alt=sae_frontier_alt,
        title="What SAEs keep at how many latents",
        caption="Each point is one SAE, or several that differ in their seed alone; lines join "
        "those of one architecture and width. Up and to the left is better: more is kept by fewer "
        "latents. Left: the share of the activations' variance that is reproduced. Right: how "
        "much of the loss that the model has without the activation the reconstruction wins back. "
        "Bars are one standard error, over seeds where there are several, else over the "
        "evaluation text.",
        section="saes",
        drawn=lambda study: len(study.saes) > 1,
    ),
)
