"""Figures that compare methods where one cost is held equal: coherence lost, or distance from the
unsteered model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.analyses.steering import tables
from saeflow.analyses.steering.figures.legends import method_handle
from saeflow.analyses.steering.methods import look
from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import band_opacity, legend, no_data, panels, styled, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NOTHING = "no method comes to any of the levels"
COHERENCE, DIVERGENCE = "coherence", "kl"
COSTS = {
    COHERENCE: "coherence, as a share of the unsteered coherence (steering grows to the right)",
    DIVERGENCE: "KL divergence from the unsteered model, nats per token",
}


def at_coherence(matched: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The rows where methods have lost as much coherence."""
    return _at(matched, COHERENCE)


def at_divergence(matched: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """The rows where methods have moved the model as far."""
    return _at(matched, DIVERGENCE)


def _at(matched: pl.DataFrame, cost: str) -> pl.DataFrame:
    own = tables.of_chosen_latents(matched)
    return own.filter(pl.col("cost") == cost) if "cost" in own.columns else own


@styled
def equal_cost(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Behaviour at each level of a cost, a panel per goal and one for their average, a line per
    method.

    Args:
        rows: from ``at_coherence`` or ``at_divergence``.
    """
    goals = tables.goals(rows)
    if not goals or rows["behaviour"].drop_nulls().is_empty():
        return no_data(settings, NOTHING)
    groups = [tables.AVERAGE, *goals] if len(goals) > 1 else goals
    figure, axes = panels(len(groups), settings, height=2.0)
    methods = tables.methods(rows)
    for group, panel in zip(groups, axes, strict=True):
        for method in methods:
            own = rows.filter(goal=group, method=method)
            _line(panel, own, method, band_opacity(len(methods)))
        panel.set_title(
            f"average of {counted(len(goals), 'goal')}" if group == tables.AVERAGE else words(group)
        )
    if groups[0] == tables.AVERAGE:
        axes[0].set_facecolor("#F4F4F1")
    axes[0].set_ylim(bottom=-0.02)
    cost = rows["cost"][0]
    if cost == COHERENCE:
        axes[0].invert_xaxis()  # shared by all panels
    figure.supxlabel(COSTS[cost], fontsize=9)
    figure.supylabel("behaviour", fontsize=9)
    legend(figure, map(method_handle, methods))
    return figure


def equal_cost_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    measured = rows.drop_nulls(["behaviour", "level"]) if "behaviour" in rows.columns else rows
    if measured.is_empty():
        return f"No data: {NOTHING}."
    averages = []
    for (level,), at_level in measured.filter(pl.col("goal") == tables.AVERAGE).group_by(
        "level", maintain_order=True
    ):
        values = ", ".join(f"{row['method']} {row['behaviour']:.2f}" for row in at_level.to_dicts())
        averages.append(f"at {level:g}: {values}")
    return (
        f"Line charts of behaviour against {COSTS[measured['cost'][0]].partition(' (')[0]}, one "
        f"per goal. Averages {'; '.join(averages) or 'are not known'}."
    )


def _line(panel: Axes, rows: pl.DataFrame, method: str, opacity: float) -> None:
    line = rows.drop_nulls(["behaviour", "level"]).sort("level")
    colour, marker = look(method)
    banded = line.drop_nulls(["behaviour_low", "behaviour_high"])
    low, high = banded["behaviour_low"], banded["behaviour_high"]
    panel.fill_between(banded["level"], low, high, color=colour, alpha=opacity, linewidth=0)
    panel.plot(line["level"], line["behaviour"], color=colour, marker=marker)


FIGURES = (
    Figure(
        name="equal_coherence",
        tables=("steering/matched.parquet",),
        rows=at_coherence,
        draw=equal_cost,
        alt=equal_cost_alt,
        title="Methods at equal coherence",
        caption="The product weighs behaviour and coherence in one fixed way. Here every method "
        "is followed along its scales to the first point where coherence has fallen to a share of "
        "what it is without steering, and its behaviour is read there. A method without a point "
        "does not come so far, or does not in every goal.",
        section="results",
    ),
    Figure(
        name="equal_divergence",
        tables=("steering/matched.parquet",),
        rows=at_divergence,
        draw=equal_cost,
        alt=equal_cost_alt,
        title="Methods at equal distance from the unsteered model",
        caption="The same at equal Kullback-Leibler divergence: how far, per token, the steered "
        "model's predictions are from those of the model without steering on the same text. It "
        "needs no judge of coherence.",
        section="results",
    ),
)
