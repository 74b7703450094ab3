"""Numbers are written so that what is read of them is true."""

from __future__ import annotations

import pytest

from saeflow.report.wording import brackets, estimate, interval


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.58, 0.66, "[0.58, 0.66]"),
        (0.0004, 0.09, "[0.0004, 0.09]"),
        (0.0, 0.09, "[0.00, 0.09]"),
        (-0.002, 0.09, "[0.00, 0.09]"),
        (-0.3, -0.0012, "[-0.30, -0.001]"),
    ],
)
def test_ends_of_an_interval_that_excludes_zero_are_not_written_as_zero(
    low: float, high: float, told: str
) -> None:
    assert brackets(low, high) == told
    assert interval({"gain_low": low, "gain_high": high}, "gain") == told


def test_an_estimate_beside_zero_keeps_its_sign_and_decimals() -> None:
    assert estimate(0.0002, 0.0001, 0.0312, places=3, sign="+") == "+0.0002 [+0.0001, +0.031]"
    assert estimate(-0.0002, -0.01, 0.01, places=3, sign="+") == "+0.000 [-0.010, +0.010]"
    assert interval({"gain_low": None, "gain_high": 1.0}, "gain") == ""
