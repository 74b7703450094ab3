"""Figures for dark ground: the same drawing in other colours, made from the SVG without drawing it
again.

What is drawn by lines and letters gets other colours, one by one. A picture inside the drawing,
such as a heat map and its scale, has colours that stand for numbers: a filter turns light into dark
and keeps the hue, so that what was nearest to the ground still is.
"""

from __future__ import annotations

import re

from saeflow.palette import FAINT, GREY, INK, SERIES

GROUND, LIGHT = "#1B1C1B", "#E6E6E1"
_TONES = {
    "#FFFFFF": GROUND,
    "#F4F4F1": "#272826",
    INK: LIGHT,
    FAINT: "#30312F",
    "#C8C8C8": "#565752",
    "#9A9A9A": "#6F706A",
    "#555555": "#B2B3AC",
    GREY: "#A6A6A0",
}
"""Grounds, lines and letters of the house style, and what they are on dark ground."""


def lighter(colour: str, share: float = 0.35) -> str:
    """A colour nearer to white, so that it stands out on dark ground as it did on light."""
    parts = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(part + share * (255 - part)):02X}" for part in parts)


_COLOURS = {colour: lighter(colour) for colour in SERIES}
_MAP = {old.lower(): new for old, new in (_COLOURS | _TONES).items()}


def _turned() -> str:
    """The matrix of a filter that turns white into the dark ground and black into its light, and
    keeps hues: colours inverted, and their hue then turned by half a circle."""
    ground, light = (int(colour[1:3], 16) / 255 for colour in (GROUND, LIGHT))
    luminance = (0.213, 0.715, 0.072)
    rows = [
        [(light - ground) * ((row == column) - 2 * luminance[column]) for column in range(3)]
        + [0.0, light]
        for row in range(3)
    ]
    return " ".join(f"{value:.4g}" for row in [*rows, [0.0, 0.0, 0.0, 1.0, 0.0]] for value in row)


_FILTER = (
    '<filter id="on-dark" color-interpolation-filters="sRGB" x="0" y="0" width="1" height="1">'
    f'<feColorMatrix values="{_turned()}"/></filter>'
)


def dark(svg: str) -> str:
    """A drawing of the house style on dark ground.

    Args:
        svg: as matplotlib writes it; what names no colour is black there, and here light.
    """
    recoloured = re.sub(
        r"#[0-9a-fA-F]{6}\b", lambda match: _MAP.get(match[0].lower(), match[0]), svg
    )
    lit = recoloured.replace("<svg ", f'<svg fill="{LIGHT}" ', 1)
    if "<image" not in lit:
        return lit
    head, end, rest = lit.partition("</defs>")
    return head + _FILTER + end + rest.replace("<image ", '<image filter="url(#on-dark)" ')
