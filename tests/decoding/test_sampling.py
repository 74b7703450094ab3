"""The sampler draws from the distribution it is told, and from nothing else."""

from __future__ import annotations

import pytest
import torch

from saeflow.config.sections import Sampling
from saeflow.decoding.sampling import inverse_cdf, sample

ROWS = 4_000


def draw(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Frequencies of the tokens over evenly spread uniform numbers."""
    uniform = (torch.arange(ROWS, dtype=torch.float64) + 0.5) / ROWS
    tokens = sample(logits.expand(ROWS, -1), sampling, uniform)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / ROWS


@pytest.mark.parametrize("d_vocab", [7, 128, 129, 1000])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_frequencies_are_the_softmax(d_vocab: int, temperature: float) -> None:
    logits = torch.randn(d_vocab, generator=torch.Generator().manual_seed(d_vocab))
    expected = (logits / temperature).softmax(-1)
    torch.testing.assert_close(
        draw(logits, Sampling(temperature=temperature)), expected, atol=2 / ROWS, rtol=0
    )


def test_top_k_keeps_the_k_most_probable() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, 0.0, 2.5])
    expected = torch.zeros(5)
    expected[[1, 2, 4]] = logits[[1, 2, 4]].softmax(-1)
    torch.testing.assert_close(draw(logits, Sampling(top_k=3)), expected, atol=2 / ROWS, rtol=0)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    expected = torch.tensor([0.0, 4 / 7, 0.0, 3 / 7])
    torch.testing.assert_close(draw(logits, Sampling(top_p=0.6)), expected, atol=2 / ROWS, rtol=0)


def test_top_p_acts_on_what_top_k_left() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    # of the two kept, 4/7 and 3/7; the first reaches 0.5 alone
    assert draw(logits, Sampling(top_k=2, top_p=0.5)).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_temperature_zero_takes_the_most_probable() -> None:
    assert draw(torch.tensor([0.0, 2.0, 1.0]), Sampling(temperature=0)).tolist() == [0.0, 1.0, 0.0]


def test_more_candidates_than_the_vocabulary_are_all_of_it() -> None:
    logits = torch.randn(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        draw(logits, Sampling(top_k=50)), logits.softmax(-1), atol=2 / ROWS, rtol=0
    )


def test_a_token_of_no_weight_is_never_drawn() -> None:
    weights = torch.zeros(3, 300)
    weights[:, [4, 250]] = torch.tensor([1e-30, 1.0])
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(weights, uniform).tolist() == [4, 250, 250]


def test_the_block_sums_find_what_the_full_sum_finds() -> None:
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(500, 1000, generator=generator).square()
    uniform = torch.rand(500, generator=generator, dtype=torch.float64)
    upto = weights.double().cumsum(-1)
    expected = (upto <= (uniform * upto[:, -1])[:, None]).sum(-1)
    assert torch.equal(inverse_cdf(weights, uniform), expected)
