"""What a search chose, in rows and sentences for the report."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.steering.search import RANDOM
from saeflow.analyses.steering.tables import AVERAGE, goals, methods
from saeflow.report.wording import estimate, interval, number


class SearchRow(NamedTuple):
    """One goal and method of the table of a search."""

    goal: str
    """``average`` for the mean over goals."""
    method: str
    place: str
    """Layer and scale that were chosen; empty for the average."""
    product: str
    """On the half that chose nothing, with its interval."""
    kl: str
    """Nats per token there."""
    own_place: str
    own_product: str
    """The same where only the study's layer may be chosen."""
    over_own: str
    over_random: str


def search_rows(best: pl.DataFrame) -> list[SearchRow]:
    """The average first, then the goals; methods in the order of tables and figures."""
    if best.is_empty():
        return []
    by_key = {(row["goal"], row["method"], row["layers"]): row for row in best.to_dicts()}
    names = goals(best)
    return [
        _row(by_key[goal, method, "all"], by_key[goal, method, "own"])
        for goal in ([AVERAGE, *names] if len(names) > 1 else names)
        for method in methods(best)
        if (goal, method, "all") in by_key
    ]


def search_sentences(best: pl.DataFrame, budget: float, own_layer: int) -> list[str]:
    """What the search gained on average, in sentences; nothing without one."""
    first = search_rows(best)[: len(methods(best))]
    controls = [row.product for row in first if row.method == RANDOM]
    beside = f"; {RANDOM}, searched alike, has {controls[0]}" if controls else ""
    return [
        f"Where every layer may be chosen, {row.method} has an average product of {row.product} at "
        f"{row.kl} nats per token on held-out completions (budget {budget:g}), and "
        f"{row.own_product} where only layer {own_layer} may, a difference of {row.over_own}"
        f"{beside}."
        for row in first
        if row.over_own and row.method != RANDOM
    ]


def _row(chosen: dict[str, Any], own: dict[str, Any]) -> SearchRow:
    return SearchRow(
        goal=chosen["goal"],
        method=chosen["method"],
        place=_place(chosen),
        product=f"{number(chosen['product'])} {interval(chosen)}".strip(),
        kl=number(chosen["kl"]),
        own_place=_place(own).partition(", ")[2] or _place(own),
        own_product=f"{number(own['product'])} {interval(own)}".strip(),
        over_own=_difference(chosen, "over_own"),
        over_random="" if chosen["method"] == RANDOM else _difference(chosen, "over_random"),
    )


def _place(row: dict[str, Any]) -> str:
    if row["goal"] == AVERAGE:
        return ""
    if row["multiple"] is None:
        return "–"
    return f"{row['layer']}, × {row['multiple']:g}" if row["multiple"] else "unsteered"


def _difference(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    return estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])
