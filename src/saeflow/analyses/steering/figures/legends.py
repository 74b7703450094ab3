"""What legends of figures of steering hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.steering.methods import IN_WORDS, look
from saeflow.figures.style import legend_entry

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

TOLD = (0, (6, 2, 1, 2))
"""The line of a method in words, which has no scale: it is there at all of them."""


def method_handle(method: str) -> Line2D:
    """The legend entry of a method."""
    colour, marker = look(method)
    style = {"linestyle": TOLD} if method in IN_WORDS else {}
    return legend_entry(color=colour, marker=marker, markersize=5, label=method, **style)
