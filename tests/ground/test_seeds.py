"""Random draws depend on their names alone, and the counter-based numbers are uniform and
independent."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from saeflow.seeds import numpy_generator, row_keys, seed_for, torch_generator, uniforms

MASK = 2**64 - 1


def splitmix64(state: int, count: int) -> list[int]:
    """Vigna's reference implementation (prng.di.unimi.it/splitmix64.c), in whole numbers."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(z ^ (z >> 31))
    return numbers


@pytest.fixture(scope="module")
def table() -> NDArray[np.float64]:
    """Numbers of 400 rows, ``[400, 250]``."""
    return uniforms(row_keys(0, "test", [(row,) for row in range(400)]), 250)


def test_numbers_are_those_of_splitmix64_seeded_with_the_key() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(1234567, 3) == published
    # Number i is output i of the generator; a double keeps the upper 53 of its 64 bits.
    expected = [(number >> 11) * 2.0**-53 for number in published]
    assert uniforms(np.array([1234567], dtype=np.uint64), 3).tolist() == [expected]


@pytest.mark.parametrize("key", [0, 1, 2**63, MASK])
def test_numbers_are_those_of_splitmix64_where_64_bits_overflow(key: int) -> None:
    expected = [(number >> 11) * 2.0**-53 for number in splitmix64(key, 100)]
    assert uniforms(np.array([key], dtype=np.uint64), 100).tolist() == [expected]


def test_any_step_of_any_row_can_be_had_alone(table: NDArray[np.float64]) -> None:
    keys = row_keys(0, "test", [(row,) for row in range(400)])
    np.testing.assert_array_equal(uniforms(keys, 50, first=200), table[:, 200:])
    np.testing.assert_array_equal(uniforms(keys[::-7], 250), table[::-7])
    np.testing.assert_array_equal(
        np.hstack([uniforms(keys, 1, first=step) for step in range(10)]), table[:, :10]
    )
    assert uniforms(keys[:0], 5).shape == (0, 5)
    assert uniforms(keys, 0).shape == (400, 0)


def test_numbers_are_uniform(table: NDArray[np.float64]) -> None:
    assert table.dtype == np.float64
    assert 0 <= table.min() < 1e-4
    assert 1 - 1e-4 < table.max() < 1
    assert stats.kstest(table.ravel(), "uniform").pvalue > 0.01
    each_row = [stats.kstest(row, "uniform").pvalue for row in table]
    assert stats.kstest(each_row, "uniform").pvalue > 0.01, "rows one by one are uniform too"


def test_rows_and_steps_are_independent(table: NDArray[np.float64]) -> None:
    for numbers in (table, table.T):
        count = len(numbers)
        correlations = np.corrcoef(numbers)[np.triu_indices(count, 1)]
        scaled = correlations * np.sqrt(numbers.shape[1])
        assert abs(scaled.mean()) < 5 / np.sqrt(len(scaled))
        assert scaled.std() == pytest.approx(1, abs=0.02)
        assert abs(scaled).max() < 5.5
    pairs, _, _ = np.histogram2d(
        table[:, :-1].ravel(), table[:, 1:].ravel(), bins=16, range=[[0, 1], [0, 1]]
    )
    assert stats.chisquare(pairs.ravel()).pvalue > 0.01, "a number tells nothing of the next"


def test_numbers_of_neighbouring_keys_are_independent() -> None:
    neighbours = uniforms(np.arange(1000, dtype=np.uint64), 200)
    assert stats.kstest(neighbours[:, 0], "uniform").pvalue > 0.01
    lagged = np.corrcoef(neighbours[:-1].ravel(), neighbours[1:].ravel())[0, 1]
    assert abs(lagged) < 5 / np.sqrt(neighbours[1:].size)


def test_seeds_differ_by_study_purpose_and_order_and_split_words_apart() -> None:
    names = [
        (0,),
        (1,),
        (0, "a"),
        (0, "a", 0),
        (0, "a", 1),
        (0, "a", 10),
        (0, "ab", "c"),
        (0, "a", "bc"),
        (0, "bc", "a"),
    ]
    assert len({seed_for(*name) for name in names}) == len(names)
    assert all(0 <= seed_for(*name) < 2**63 for name in names)
    many = {seed_for(0, "vector", vector, sample) for vector in range(200) for sample in range(200)}
    assert len(many) == 40_000


def test_seeds_are_the_same_in_every_process_and_release() -> None:
    # A change of these numbers changes every result of every study: it needs a new release and a
    # word in the notes.
    assert seed_for(0, "sae", "main", "weights") == 5391644650182145408
    program = "from saeflow.seeds import seed_for; print(seed_for(0, 'sae', 'main', 'weights'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert int(done.stdout) == seed_for(0, "sae", "main", "weights")


def test_equal_items_have_equal_keys() -> None:
    keys = row_keys(3, "noise", [("I think", 0), ("I think", 1), ("I think", 0)])
    assert keys.dtype == np.uint64
    assert keys[0] == keys[2] != keys[1]
    assert row_keys(3, "noise", [("I think", 1)])[0] == keys[1]
    assert row_keys(4, "noise", [("I think", 1)])[0] != keys[1]
    assert row_keys(3, "noise", []).shape == (0,)


def test_generators_repeat_by_name() -> None:
    first, again, other = (numpy_generator(0, name).random(3).tolist() for name in ("a", "a", "b"))
    assert first == again != other
    first, again, other = (
        torch.rand(3, generator=torch_generator(0, name)).tolist() for name in ("a", "a", "b")
    )
    assert first == again != other
