"""The line that a long job leaves in its log: how far it is, how fast, how long it will take."""

from __future__ import annotations

import pytest

from saeflow import options


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands where it is set, and a log that is no terminal."""
    now = [1000.0]
    monkeypatch.setattr(options.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(options.sys.stderr, "isatty", lambda: False, raising=False)
    return now


def test_a_line_every_ten_seconds_tells_rate_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    beat = options.progress("train SAE, tokens")
    for second in range(26):
        clock[0] = 1000.0 + second
        beat(100 * second, 5000, f"L0 {second}")
    assert capsys.readouterr().err.splitlines() == [
        "train SAE, tokens: 1000 / 5000, 100.0 per second, 40 s left, L0 10",
        "train SAE, tokens: 2000 / 5000, 100.0 per second, 30 s left, L0 20",
    ]


def test_what_an_interrupted_run_had_done_counts_in_no_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    beat = options.progress("tokens")
    clock[0] += 1
    beat(90_000, 100_000)
    clock[0] += 10
    beat(91_000, 100_000)
    assert capsys.readouterr().err == "tokens: 91000 / 100000, 100.0 per second, 90 s left\n"


def test_the_end_is_told_at_once(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    beat = options.progress("blocks")
    clock[0] += 2
    beat(8, 8)
    assert capsys.readouterr().err == "blocks: 8 / 8, 4.0 per second, 0 s left\n"
