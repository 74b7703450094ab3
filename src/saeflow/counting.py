"""Counts and what they count, as people write them."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 SAE``, ``2 SAEs``, ``1,000 shards``.

    Args:
        count: how many.
        noun: what one of them is called.
        plural: what several are called; the noun and an s where it is not said.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
