"""The figure of behaviour with and without steering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.analyses.steering import tables
from saeflow.analyses.steering.methods import look
from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, no_data, panels, styled, words
from saeflow.palette import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NOTHING = "no completion has been scored"
GOALS_PER_ROW = 5
UNSTEERED = "unsteered"


def steered_behaviour(summary: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Behaviour on held-out completions: one unsteered row per goal, one row per method at its
    chosen scale.

    Every method has its own completions at scale 0, all drawn from the same unsteered model; the
    first method's stand for all.
    """
    if summary.is_empty():
        return pl.DataFrame()
    columns = [
        "goal",
        "method",
        "scale",
        "behaviour",
        "behaviour_low",
        "behaviour_high",
        "coherence",
        "n",
    ]
    own = tables.of_chosen_latents(summary)
    report = tables.of_split(own, "report").drop_nulls("behaviour")
    control = report.filter(pl.col("scale") == 0).unique("goal", keep="first", maintain_order=True)
    steered = report.filter(pl.col("selected")).select(columns)
    together = pl.concat([control.with_columns(method=pl.lit(UNSTEERED)).select(columns), steered])
    order = {goal: i for i, goal in enumerate(tables.goals(report))}
    return together.sort(
        pl.col("goal").replace_strict(order, return_dtype=pl.Int64), maintain_order=True
    )


@styled
def steered_vs_unsteered(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Behaviour without steering and with each method at its chosen scale, bars with intervals, by
    goal.

    Args:
        rows: from ``steered_behaviour``.
    """
    from matplotlib.patches import Patch

    goals = tables.goals(rows)
    names = [UNSTEERED, *[name for name in tables.methods(rows) if name != UNSTEERED]]
    if not goals:
        return no_data(settings, NOTHING)
    lines = -(-len(goals) // GOALS_PER_ROW)
    per_line = -(-len(goals) // lines)
    figure, axes = panels(lines, settings, height=2.3, share_x=False, columns=1)
    for i, panel in enumerate(axes):
        _bars(panel, rows, goals[i * per_line : (i + 1) * per_line], names)
        panel.set_xlim(-0.5, max(per_line, 3) - 0.5)
    axes[0].set_ylim(bottom=0)
    figure.supylabel("behaviour", fontsize=9)
    legend(
        figure,
        [Patch(facecolor=_fill(name)[0], edgecolor=_fill(name)[1], label=name) for name in names],
    )
    return figure


def steered_vs_unsteered_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    if rows.is_empty():
        return f"No data: {NOTHING}."
    described = []
    for goal in tables.goals(rows):
        own = rows.filter(pl.col("goal") == goal)
        described.append(
            f"{words(goal)}: "
            + ", ".join(f"{r['method']} {r['behaviour']:.2f}" for r in own.to_dicts())
        )
    return f"Bars of mean behaviour on held-out completions. {'; '.join(described)}."


def _bars(panel: Axes, rows: pl.DataFrame, goals: list[str], names: list[str]) -> None:
    width = 0.84 / len(names)
    for row in rows.filter(pl.col("goal").is_in(goals)).to_dicts():
        x = goals.index(row["goal"]) - 0.42 + (names.index(row["method"]) + 0.5) * width
        face, edge = _fill(row["method"])
        panel.bar(x, row["behaviour"], width * 0.88, facecolor=face, edgecolor=edge, linewidth=0.9)
        if row["behaviour_low"] is not None and row["behaviour_high"] is not None:
            panel.plot(
                [x, x], [row["behaviour_low"], row["behaviour_high"]], color=INK, linewidth=1
            )
    panel.set_xticks(range(len(goals)), [words(goal) for goal in goals])
    panel.tick_params(axis="x", length=0, labelsize=9, labelcolor=INK)
    panel.grid(axis="x", visible=False)


def _fill(method: str) -> tuple[str, str]:
    """Face and edge of a bar: the unsteered one is hollow."""
    return ("white", INK) if method == UNSTEERED else (look(method).colour, look(method).colour)


FIGURES = (
    Figure(
        name="steered_vs_unsteered",
        tables=("steering/summary.parquet",),
        rows=steered_behaviour,
        draw=steered_vs_unsteered,
        alt=steered_vs_unsteered_alt,
        title="Steered against unsteered",
        caption="Mean behaviour of held-out completions without steering (hollow) and with each "
        "method at its chosen scale, with intervals. Behaviour alone does not see whether the "
        "text still makes sense.",
        section="results",
    ),
)
