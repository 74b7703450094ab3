"""The figure of dreamed prompts: their fronts beside the data's own contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, legend_entry, no_data, panels, styled
from saeflow.palette import BLUE, GREEN, GREY, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

METHODS = {
    "adaptive": ("adaptive search", BLUE, "o"),
    "epo": ("EPO", VERMILLION, "s"),
    "random": ("search without gradients", GREEN, "^"),
    "context": ("text of the data", GREY, "x"),
}
MOST_PANELS = 12


def of_targets(fronts: pl.DataFrame, contexts: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """The fronts of the first targets, and the contexts of each as prompts: dreamed, target,
    method, cross_entropy, value."""
    if fronts.is_empty():
        return pl.DataFrame()
    columns = ["dreamed", "target", "method", "cross_entropy", "value"]
    own = fronts.select("dreamed", "target").unique(maintain_order=True).head(MOST_PANELS)
    tables = [fronts.select(columns)]
    if len(contexts):
        tables.append(contexts.with_columns(method=pl.lit("context")).select(columns))
    return pl.concat(tables).join(own, on=["dreamed", "target"], maintain_order="left")


@styled
def dreamed_fronts(rows: pl.DataFrame, settings: Figures) -> Drawing:
    """Value against cross-entropy, a panel for each target."""
    if rows.is_empty():
        return no_data(settings, "nothing was dreamed of")
    places = rows.select("dreamed", "target").unique(maintain_order=True).rows()
    several = len({name for name, _ in places}) > 1
    drawing, axes = panels(len(places), settings, 2.3)
    for panel, (name, target) in zip(axes, places, strict=True):
        own = rows.filter(dreamed=name, target=target)
        for method, (_, colour, marker) in METHODS.items():
            points = own.filter(method=method).sort("cross_entropy")
            if len(points):
                x, y = (points[column].to_numpy() for column in ("cross_entropy", "value"))
                style = "" if method == "context" else "-"
                panel.plot(x, y, color=colour, marker=marker, markersize=3, linestyle=style)
        panel.set_title(f"{target}, {name}" if several else target)
        panel.set_xlabel("nats per token")
        panel.set_ylabel("value")
    legend(
        drawing,
        [
            legend_entry(color=colour, marker=marker, label=text)
            for name, (text, colour, marker) in METHODS.items()
            if name in set(rows["method"])
        ],
    )
    return drawing


def dreamed_fronts_alt(rows: pl.DataFrame) -> str:
    """For those who do not see it."""
    if rows.is_empty():
        return "No data: nothing was dreamed of, so there are no fronts."
    dreamed = rows.filter(pl.col("method") != "context")
    best = dreamed.group_by("dreamed", "target", maintain_order=True).agg(pl.col("value").max())
    data = (
        rows.filter(method="context").group_by("dreamed", "target").agg(data=pl.col("value").max())
    )
    parts = [
        f"{row['target']} of {row['dreamed']} reaches {row['value']:.3g}"
        + (f", text of the data {row['data']:.3g}" if row["data"] is not None else "")
        for row in best.join(data, on=["dreamed", "target"], how="left").to_dicts()
    ]
    return f"Value of dreamed prompts against their cross-entropy. {'; '.join(parts)}."


FIGURES = (
    Figure(
        name="dreamed_fronts",
        tables=("dreaming/{dreamed}/fronts.parquet", "dreaming/{dreamed}/contexts.parquet"),
        rows=of_targets,
        draw=dreamed_fronts,
        alt=dreamed_fronts_alt,
        title="What prompts can make of a target",
        caption="Each point is a prompt: how much it moves the target, and how unlikely a text it "
        "is to the model itself. Lines join prompts that no other of the same search betters in "
        "both. Crosses: the last tokens of the data's contexts, read as prompts in the same frame. "
        "A line above the crosses says that the data does not hold what the target answers to "
        "most.",
        section="dreaming",
    ),
)
