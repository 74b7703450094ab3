"""Colours and markers of series, for figures and pages alike.

The colours are Okabe and Ito's: told apart in every common kind of colour blindness. The markers
tell series apart in grey.
"""

from __future__ import annotations

from typing import NamedTuple

BLUE, ORANGE, VERMILLION, PURPLE, GREEN, SKY = (
    "#0072B2",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
    "#009E73",
    "#56B4E9",
)
BROWN, TEAL = "#8C510A", "#01665E"
"""For what is no vector, beside the six."""
GREY, INK, FAINT = "#8A8A8A", "#222222", "#E4E4E4"
SERIES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)


class Look(NamedTuple):
    """How one series is drawn, everywhere."""

    colour: str
    marker: str
    """Matplotlib's letter; pages take it in lower case."""


OTHER = Look(INK, "*")
