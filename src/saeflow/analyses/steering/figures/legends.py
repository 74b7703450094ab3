"""What legends of figures of steering hold."""

from __future__ import annotations

from matplotlib.lines import Line2D

from saeflow.analyses.steering.methods import look


def method_handle(method: str) -> Line2D:
    """The legend entry of a method."""
    colour, marker = look(method)
    return Line2D([], [], color=colour, marker=marker, markersize=5, label=method)
