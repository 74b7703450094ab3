"""Files that come with the workflow and that a config names."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def shipped_or_own(name: str) -> Path:
    """A file or folder that the config names: in the checkout that this package lies in where
    it is there and not in the working directory. The workflow seeks them in the same order."""
    shipped = CHECKOUT / name
    return shipped if shipped.exists() and not Path(name).exists() else Path(name)
