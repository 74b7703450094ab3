"""The size of decode batches: what fits, what happens when it does not, and that results hardly know it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from checkout import SUPPORT
from effects_experiment import EVALUATION, NORM, experiment, too_large
from steered import HOOK, tiny_lm, unit_rows

from saeflow.analyses.effects.measure import (
    Experiment,
    measure_baseline,
    measure_in_batches_that_fit,
    prepare,
)
from saeflow.analyses.effects.memory import (
    FEWEST,
    MOST,
    bytes_per_row,
    power_of_two_in,
    rows_that_fit,
)
from saeflow.config import Sampling
from saeflow.decoding.generation import BufferCache, decode_one_token, prefill
from saeflow.decoding.rollouts import BATCH_ROWS, Plan, Steered, prompt_groups, roll_out
from saeflow.errors import SaeflowError
from saeflow.models.exhaustion import halve_batch_on_oom
from saeflow.saes.subject import Subject


def test_rows_are_a_power_of_two_that_fits() -> None:
    assert power_of_two_in(1000, 3) == 256
    assert power_of_two_in(1024, 1) == 1024
    assert power_of_two_in(5, 10**9) == FEWEST
    assert power_of_two_in(10**12, 1) == MOST
    assert rows_that_fit(tiny_lm(), 20) == BATCH_ROWS


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_memory_of_a_row_covers_its_keys_and_values(family: str) -> None:
    lm, cache, rows, length = tiny_lm(family), BufferCache(), 6, 9
    prefill(lm, torch.zeros(1, 3, dtype=torch.long), cache)
    cache.repeat(rows, length)
    decode_one_token(lm, torch.zeros(rows, dtype=torch.long), cache)
    held = sum(part.nbytes for layer in cache.layers for part in layer.memory.values()) / rows
    rest = 2 * length * lm.d_model * 4 + lm.d_vocab * 16
    assert bytes_per_row(lm, length) - rest == held


LIMITED = """
import resource, sys
from effects_experiment import too_large
exp, limit = too_large(), int(sys.argv[1])
from saeflow.analyses.effects.measure import measure_baseline
from saeflow.analyses.effects.measure import measure_in_batches_that_fit
resource.setrlimit(resource.RLIMIT_AS, (limit + int(open("/proc/self/statm").read().split()[0]) * 4096,) * 2)
try:
    baseline, fitted = measure_in_batches_that_fit(exp, measure_baseline)
    print(exp.batch_rows, fitted.batch_rows, baseline.mean.sum().item())
except Exception as error:
    print(type(error).__name__, error)
"""


def limited(megabytes: int) -> str:
    """What a process with only so much memory left says."""
    command = [sys.executable, "-c", LIMITED, str(megabytes << 20)]
    return subprocess.run(command, cwd=SUPPORT, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    tried, fitted, total = limited(300).split()
    assert int(tried) == 16_384
    assert FEWEST < int(fitted) < 16_384
    assert int(fitted).bit_count() == 1
    baseline, same = measure_in_batches_that_fit(experiment_of(int(fitted)), measure_baseline)
    assert same.batch_rows == int(fitted)
    assert float(total) == pytest.approx(baseline.mean.sum().item(), rel=1e-6)


@pytest.mark.parametrize("words", ["can't allocate memory", "could not create a primitive"])
def test_all_words_for_no_memory_halve_the_batch(words: str) -> None:
    def hungry(rows: int) -> int:
        if rows > 4:
            raise RuntimeError(words)
        return rows

    assert halve_batch_on_oom(16, hungry, least=2, complaint="{size}") == (4, 4)


def experiment_of(rows: int) -> Experiment:
    """The same with fewer rows."""
    whole = too_large()
    return prepare(
        Subject(whole.subject.lm, whole.subject.sae, HOOK, 3),
        whole.settings,
        EVALUATION,
        NORM,
        batch_rows=rows,
    )


def test_no_memory_at_all_is_said_in_one_sentence() -> None:
    exp = experiment(batch_rows=64)

    def hungry(_: Experiment) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(
        SaeflowError, match="memory runs out with 16 rollouts side by side; lower new_tokens"
    ):
        measure_in_batches_that_fit(exp, hungry)


def test_another_failure_is_no_lack_of_memory() -> None:
    def wrong(_: Experiment) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        measure_in_batches_that_fit(experiment(), wrong)


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma2", "gpt2", "gpt_neox")),
    ],
)
def test_with_another_batch_size_nearly_every_text_is_the_same(family: str) -> None:
    lm, vectors, scales = tiny_lm(family), unit_rows(8), torch.full((8,), 3.0)
    (group, *_) = prompt_groups(lm, ["ab cd"])
    texts = []
    for rows in (16, 128):
        plan = Plan(64, 12, Sampling(), 0, "test", rows)
        batches = roll_out(lm, HOOK, group, Steered(vectors, scales, range(8)), plan)
        drawn = torch.empty(8, 64, 12, dtype=torch.long)
        for batch in batches:
            drawn[batch.vectors, batch.samples.start : batch.samples.stop] = batch.tokens
        texts.append(drawn.view(-1, 12))
    assert (texts[0] == texts[1]).all(1).float().mean() > 0.995
