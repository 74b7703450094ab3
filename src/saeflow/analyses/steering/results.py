"""What the study found, as tables and sentences: which method wins where, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from saeflow.analyses.steering.scale_words import of_index
from saeflow.analyses.steering.tables import AVERAGE, goals, methods
from saeflow.figures.style import words
from saeflow.report.wording import estimate, interval, number
from saeflow.statistics.permutation import ALPHA, holm, smallest_p

BEST, TIE, PLAIN = "best", "tie", ""


class Cell(NamedTuple):
    """One method on one goal."""

    method: str
    value: str
    interval: str
    mark: str
    """``best``: ahead of every other method (see `ahead`). ``tie``: not told apart from the
    largest. Else empty."""
    note: str
    """Chosen scale and in-sample maximum."""


class Row(NamedTuple):
    """One goal of the main table, or the average over goals."""

    name: str
    """Of the goal; ``average`` for their average."""
    goal: str
    """In words."""
    average: bool
    cells: list[Cell]
    unsteered: str


class InSampleRow(NamedTuple):
    """One goal and method of the second table."""

    name: str
    """Of the goal."""
    method: str
    scale: str
    product: str
    in_sample_scale: str
    in_sample_product: str
    behaviour: str
    coherence: str
    n: str


class Difference(NamedTuple):
    """A paired difference of two methods on the same completions."""

    value: float
    low: float
    high: float
    p_value: float
    """Of this comparison alone."""
    p_holm: float
    """Corrected for all comparisons of the study."""
    units: int
    """Samples, or prompts where there are several, that the test could exchange."""

    @property
    def sure(self) -> bool:
        """The corrected test leaves no doubt, and the interval excludes zero: see `ahead`."""
        return self.p_holm <= ALPHA and not self.low <= 0 <= self.high

    def worded(self) -> str:
        """The difference and its interval."""
        return estimate(self.value, self.low, self.high)


def difference(comparisons: pl.DataFrame, goal: str, first: str, second: str) -> Difference | None:
    """The measured difference ``first - second`` on a goal, whichever way round the table holds
    it."""
    if comparisons.is_empty():
        return None
    columns = ["difference", "difference_low", "difference_high", "p_value", "p_holm", "units"]
    for sign, pair in ((1, (first, second)), (-1, (second, first))):
        rows = comparisons.filter(
            (pl.col("goal") == goal) & (pl.col("method") == pair[0]) & (pl.col("other") == pair[1])
        ).drop_nulls(columns)
        if len(rows):
            value, low, high, *tested = rows.select(columns).row(0)
            return (
                Difference(value, low, high, *tested)
                if sign > 0
                else Difference(-value, -high, -low, *tested)
            )
    return None


def ahead(best: pl.DataFrame, comparisons: pl.DataFrame) -> dict[str, float]:
    """Of every goal, the corrected p-value of "its largest product is ahead of all others"; NaN
    without others.

    Of all such claims of a study, the average's among them, the chance that any is false is at most
    the level that is asked for. A claim needs every rival to be behind, so its p-value is the
    largest of its comparisons; since these are two-sided, it is no matter that the same samples
    tell which method is largest (Gutmann and Maymin, Ann. Statist. 15, 1987; Hung and Fithian, Ann.
    Statist. 47, 2019). Holm's correction is for the goals.

    The test asks whether methods differ in anything. Where one scores rarely but highly, a few
    completions may hold none of that and show a difference that the means do not have; so the
    interval must exclude zero, too.
    """
    p_values: dict[tuple[str, frozenset[str]], float] = {}
    if not comparisons.is_empty():
        includes_zero = pl.col("difference_low").le(0) & pl.col("difference_high").ge(0)
        p_value = (
            pl.when(includes_zero.fill_null(True)).then(1.0).otherwise("p_value").fill_null(1.0)
        )
        for goal, method, other, p in comparisons.select(
            "goal", "method", "other", p_value
        ).iter_rows():
            p_values[goal, frozenset((method, other))] = p
    claims = {}
    for goal in _groups(best):
        top, *others = [row["method"] for row in ranked(best, goal)] or [""]
        tested = [p_values.get((goal, frozenset((top, other))), 1.0) for other in others]
        claims[goal] = max(tested, default=np.nan)
    return dict(zip(claims, holm(np.array(list(claims.values()))).tolist(), strict=True))


def marks(best: pl.DataFrame, comparisons: pl.DataFrame, goal: str) -> dict[str, str]:
    """How each method of a goal is marked.

    The largest product is ``best`` where it is `ahead` of every other beyond doubt; otherwise it
    and all that cannot be told from it, by tests corrected for all comparisons of the study, are
    ``tie``.
    """
    rows = ranked(best, goal)
    if len(rows) < 2:
        return {}
    top, *others = (row["method"] for row in rows)
    if ahead(best, comparisons).get(goal, 1.0) <= ALPHA:
        return {top: BEST}
    differences = {other: difference(comparisons, goal, top, other) for other in others}
    level = [
        other for other, measured in differences.items() if measured is None or not measured.sure
    ]
    return {top: TIE, **dict.fromkeys(level, TIE)}


def result_rows(
    best: pl.DataFrame, comparisons: pl.DataFrame, multiples: Sequence[float] | None = None
) -> list[Row]:
    """The main table: the average first, then a row per goal, with a cell per method.

    Args:
        multiples: the study's scales, where they are no absolute ones.
    """
    names = methods(best)
    rows = []
    for goal in _groups(best):
        marked = marks(best, comparisons, goal)
        own = {row["method"]: row for row in best.filter(pl.col("goal") == goal).to_dicts()}
        cells = [
            _cell(name, own.get(name, {}), marked.get(name, PLAIN), multiples) for name in names
        ]
        unsteered = next(
            (row for row in own.values() if row.get("unsteered_product") is not None), {}
        )
        rows.append(
            Row(
                name=goal,
                goal=_called(best, goal),
                average=goal == AVERAGE,
                cells=cells,
                unsteered=number(unsteered.get("unsteered_product")),
            )
        )
    return rows


def in_sample_rows(
    best: pl.DataFrame, multiples: Sequence[float] | None = None
) -> list[InSampleRow]:
    """The second table: every goal and method with its scales, and the optimistic maximum beside
    the honest product."""
    rows = best.filter(pl.col("goal") != AVERAGE).to_dicts() if not best.is_empty() else []
    return [
        InSampleRow(
            name=row["goal"],
            method=row["method"],
            scale=of_index(row.get("scale"), row.get("scale_index"), multiples),
            product=f"{number(row['product'])} {interval(row)}".strip(),
            in_sample_scale=of_index(
                row.get("in_sample_scale"), row.get("in_sample_scale_index"), multiples
            ),
            in_sample_product=number(row.get("in_sample_product")),
            behaviour=number(row.get("behaviour")),
            coherence=number(row.get("coherence")),
            n=str(row.get("n", "–")),
        )
        for row in rows
    ]


def headline(best: pl.DataFrame, comparisons: pl.DataFrame) -> list[str]:
    """What wins and what loses, as measured, in sentences; empty where nothing was scored."""
    goal = _groups(best)[0] if _groups(best) else ""
    rows = ranked(best, goal)
    if not rows:
        return ["No product could be computed: every score is missing."] if goal else []
    where = "average product" if goal == AVERAGE else f"product for the goal {words(goal)}"
    top = rows[0]
    sentences = [
        f"{top['method']} has the highest {where} on held-out completions, {_valued(top)}."
    ]
    if len(rows) > 1:
        sentences += [_lead(best, comparisons, goal, top["method"], rows[1]["method"])]
        sentences += [f"The lowest is {rows[-1]['method']} with {_valued(rows[-1])}."]
    if top.get("unsteered_product") is not None:
        sentences += [f"Without steering the model has {number(top['unsteered_product'])}."]
    if without := sorted(set(methods(best)) - {row["method"] for row in rows}):
        sentences += [f"{_listed(without)} cannot be ranked, because a goal has too few scores."]
    return sentences + _by_goal(best, comparisons)


def _lead(best: pl.DataFrame, comparisons: pl.DataFrame, goal: str, top: str, second: str) -> str:
    lead = difference(comparisons, goal, top, second)
    if lead is None:
        return f"Whether it is truly ahead of {second}, the next, was not measured."
    if lead.sure or marks(best, comparisons, goal).get(top) == BEST:
        return (
            f"On the same completions it is ahead of {second}, the next, by {lead.worded()} "
            f"({_p(lead.p_value)})."
        )
    why = "which may be chance where so much is compared"
    if lead.p_holm <= ALPHA:
        why = "and so few completions leave room for others that would undo it"
    measured = f"{lead.worded()} ({_p(lead.p_value)})"
    return (
        f"It cannot be told apart from {second}, the next: their difference is {measured}, {why}."
    )


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 0.0001 else "p < 0.0001"


def _by_goal(best: pl.DataFrame, comparisons: pl.DataFrame) -> list[str]:
    """How many goals each method wins beyond doubt."""
    names = goals(best)
    if len(names) < 2:
        return []
    marked = [marks(best, comparisons, goal) for goal in names]
    wins = {m: sum(of_goal.get(m) == BEST for of_goal in marked) for m in methods(best)}
    won = [f"{method} in {count}" for method, count in wins.items() if count]
    ties = sum(TIE in of_goal.values() for of_goal in marked)
    if not won:
        none = f"In none of the {len(names)} goals is one method ahead of all others beyond doubt."
        return [none, *_too_few(best, comparisons)]
    ahead = (
        f"Of {len(names)} goals, one method is ahead of all others beyond doubt in "
        f"{sum(wins.values())}"
    )
    rest = f"; in {ties} the best cannot be told apart" if ties else ""
    return [f"{ahead} ({_listed(won)}){rest}."]


def _too_few(best: pl.DataFrame, comparisons: pl.DataFrame) -> list[str]:
    """That no difference, however large, could have been shown, where that is so."""
    units = comparisons["units"].max() if len(comparisons) else None
    claims = len(_groups(best))
    if not isinstance(units, int) or claims * smallest_p(units) <= ALPHA:
        return []
    return [
        f"With {units} held-out completions, or prompts where there are several, no test of "
        f"{claims} claims could show one: its smallest p-value is {smallest_p(units):.2g}. More of "
        "them are needed, whatever the difference."
    ]


def _groups(best: pl.DataFrame) -> list[str]:
    """The goals, the average before them where there are several."""
    names = goals(best)
    return [AVERAGE, *names] if len(names) > 1 and AVERAGE in best["goal"] else names


def _called(best: pl.DataFrame, goal: str) -> str:
    return f"average of {len(goals(best))} goals" if goal == AVERAGE else words(goal)


def ranked(best: pl.DataFrame, goal: str) -> list[dict[str, Any]]:
    """The rows of a goal with a product, the largest first; equal ones by name."""
    if best.is_empty():
        return []
    rows = best.filter(pl.col("goal") == goal).drop_nulls("product")
    return rows.sort(["product", "method"], descending=[True, False]).to_dicts()


def _cell(method: str, row: dict[str, Any], mark: str, multiples: Sequence[float] | None) -> Cell:
    if row.get("product") is None:
        return Cell(method, "–", "", PLAIN, "no score")
    note = f"in-sample maximum {number(row.get('in_sample_product'))}"
    if row.get("in_sample_scale") is not None:
        highest = of_index(row["in_sample_scale"], row.get("in_sample_scale_index"), multiples)
        note += f" at scale {highest}"
    if row.get("scale") is not None:
        note = f"chosen scale {of_index(row['scale'], row.get('scale_index'), multiples)}; {note}"
    return Cell(method, number(row["product"]), interval(row), mark, note)


def _valued(row: dict[str, Any]) -> str:
    return f"{number(row['product'])} {interval(row)}".strip()


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
