"""How scales are told: in the study's unit, the absolute length beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saeflow.analyses.steering.settings import Completions


def multiples(completions: Completions) -> list[float] | None:
    """A study's scales where they are multiples of the mean activation norm at the hook; None
    where they are absolute."""
    return list(completions.scales) if completions.scale_unit == "norm" else None


def facts(study: Any) -> dict[str, list[float] | None]:
    """What figures are told of it."""
    return {"multiples": multiples(study.steering.completions)}


def axis(in_norms: bool) -> str:
    """The label of an axis."""
    unit = "multiples of the mean activation norm" if in_norms else "length of what is added"
    return f"scale, {unit}"


def note(in_norms: bool) -> str:
    """What tables say of their scales."""
    if not in_norms:
        return "Scales are the length of what is added."
    return (
        "Scales are multiples of the mean activation norm at the hook; in brackets the length of "
        "what is added."
    )


def of_index(scale: float | None, index: int | None, multiples: Sequence[float] | None) -> str:
    """`worded`, by the place of the scale among those of the study."""
    inside = multiples is not None and index is not None and index < len(multiples)
    return worded(scale, multiples[index] if inside else None)  # type: ignore[index]


def of_row(row: dict[str, Any]) -> str:
    """The scale of a row whose `multiple` is in the study's unit, where that is not absolute."""
    return worded(row["scale"], row.get("multiple"))


def worded(scale: float | None, multiple: float | None) -> str:
    """``0.6 (32.6)``: the multiple and the absolute scale; that alone where there is no other unit;
    a dash where there is no scale."""
    if scale is None:
        return "–"
    return f"{scale:.3g}" if multiple is None else f"{multiple:g} ({scale:.3g})"
