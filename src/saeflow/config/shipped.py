"""Files that come with the workflow and that a config names."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def shipped_or_own(name: str) -> Path:
    """A file or folder that the config names: in the working directory where it is there, else in
    the checkout that this package lies in. The workflow seeks them in the same order."""
    return Path(name) if Path(name).exists() else CHECKOUT / name
