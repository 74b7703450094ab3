"""Figures for dark ground: the same drawing in other colours, made from the SVG without drawing it
again."""

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


def has_dark(svg: str) -> bool:
    """Whether a drawing can change its colours; one that holds an image has colours of its own."""
    return "<image" not in svg


def dark(svg: str) -> str:
    """A drawing of the house style on dark ground.

    Args:
        svg: as matplotlib writes it; what names no colour is black there, and here light.
    """
    recoloured = re.sub(
        r"#[0-9a-fA-F]{6}\b", lambda match: _MAP.get(match[0].lower(), match[0]), svg
    )
    return recoloured.replace("<svg ", f'<svg fill="{LIGHT}" ', 1)
