"""Where the checkout lies that is tested, and what its tests hold."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = Path(__file__).parent  # a program that imports what tests share is started here
DATA = ROOT / "tests" / "data"
