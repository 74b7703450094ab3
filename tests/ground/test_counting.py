"""One of a thing is called otherwise than several."""

from __future__ import annotations

import pytest

from saeflow.counting import counted


@pytest.mark.parametrize(
    ("count", "noun", "plural", "told"),
    [
        (0, "shard", "", "0 shards"),
        (1, "SAE", "", "1 SAE"),
        (2, "SAE", "", "2 SAEs"),
        (1, "pass", "passes", "1 pass"),
        (1234, "pass", "passes", "1,234 passes"),
    ],
)
def test_a_noun_agrees_with_its_count(count: int, noun: str, plural: str, told: str) -> None:
    assert counted(count, noun, plural) == told
