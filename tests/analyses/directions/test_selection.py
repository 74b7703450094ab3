"""The published rule, on a table of our own with its columns."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from saeflow.analyses.directions.selection import choose, others
from saeflow.analyses.directions.settings import Selection

N_LAYERS = 10
# layer, ablated, added, divergence, what keeps it from being taken
ROWS = [
    (2, -3.0, 1.0, 0.02, None),
    (5, -9.0, 2.0, 0.05, None),  # the lowest that meets all of the rule
    (6, -11.0, 2.0, 0.11, "divergence too large"),
    (7, -12.0, -0.1, 0.01, "does not bring it about"),
    (8, -20.0, 5.0, 0.01, "layer too deep"),
    (9, -21.0, 5.0, 0.01, "layer too deep"),
    (3, float("nan"), 5.0, 0.01, "no score"),
    (3, None, None, None, "no score"),
    (4, -8.9, 9.0, 0.001, None),
]


def table(rows: list[tuple]) -> pl.DataFrame:
    schema = ["layer", "ablated", "added", "divergence"]
    return pl.DataFrame([row[:4] for row in rows], schema=schema, orient="row", strict=False)


def test_the_candidate_with_least_left_of_the_behaviour_is_taken_within_the_rule() -> None:
    chosen = choose(table(ROWS), N_LAYERS, Selection())
    assert chosen["why_not"].to_list() == [row[4] for row in ROWS]
    assert chosen["chosen"].arg_true().to_list() == [1]
    assert chosen["within_rule"].all()


@pytest.mark.parametrize(
    ("changed", "row"),
    [({"divergence": 0.2}, 2), ({"induced": -1.0}, 3), ({"depth": 1.0}, 5), ({"induced": 3.0}, 8)],
)
def test_each_threshold_decides(changed: dict[str, float], row: int) -> None:
    chosen = choose(table(ROWS), N_LAYERS, Selection(**changed))
    assert chosen["chosen"].arg_true().to_list() == [row]


def test_order_of_rows_changes_no_choice() -> None:
    order = np.random.default_rng(0).permutation(len(ROWS))
    chosen = choose(table([ROWS[row] for row in order]), N_LAYERS, Selection())
    assert chosen.filter("chosen").row(0)[:2] == ROWS[1][:2]


def test_where_none_meets_the_rule_the_one_that_brings_most_about_is_taken_and_told() -> None:
    chosen = choose(table(ROWS), N_LAYERS, Selection(induced=20.0))
    assert chosen["chosen"].arg_true().to_list() == [8]
    assert not chosen["within_rule"].any()


def test_other_candidates_are_drawn_among_those_with_scores() -> None:
    chosen = choose(table(ROWS), N_LAYERS, Selection())
    drawn = others(chosen, 4, np.random.default_rng(0))
    assert len(drawn) == len(set(drawn)) == 4
    assert not {1, 6, 7} & set(drawn)
    assert others(chosen, 99, np.random.default_rng(0)) == [0, 2, 3, 4, 5, 8]
