"""What legends of figures of steering hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.steering.methods import look
from saeflow.figures.style import legend_entry

if TYPE_CHECKING:
    from matplotlib.lines import Line2D


def method_handle(method: str) -> Line2D:
    """The legend entry of a method."""
    colour, marker = look(method)
    return legend_entry(color=colour, marker=marker, markersize=5, label=method)
