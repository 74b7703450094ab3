"""Products through the fastest library equal torch's own, and models tuned to them the untuned
ones."""

from __future__ import annotations

import pytest
import torch
from steered import HOOK
from tiny_models import FAMILY_NAMES, tiny_language_model, tiny_model, tiny_tokens
from torch.nn import functional

from saeflow.config import Sampling
from saeflow.decoding.generation import generate
from saeflow.models.running import capture, logits
from saeflow.products import Activation, linear, packed
from saeflow.seeds import row_keys

FUNCTIONS = {
    "none": lambda x: x,
    "relu": functional.relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    ),
}


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_float64(activation: Activation, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 5, 16, generator=generator), torch.randn(7, 16, generator=generator)
    added = torch.randn(7, generator=generator) if bias else None
    exact = FUNCTIONS[activation](
        x.double() @ weight.double().T + (0 if added is None else added.double())
    )
    torch.testing.assert_close(
        linear(x, weight, added, activation).double(), exact, rtol=1e-5, atol=1e-5
    )
    transposed = linear(x, weight.T.contiguous().T, added, activation)
    torch.testing.assert_close(transposed.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [1, 32, 200])
def test_a_packed_weight_gives_the_same_product_for_any_number_of_rows(
    dtype: torch.dtype, rows: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(rows, 48, generator=generator), torch.randn(96, 48, generator=generator)
    bias = torch.randn(96, generator=generator)
    expected = linear(x.to(dtype), weight.to(dtype), bias.to(dtype))
    torch.testing.assert_close(
        linear(x.to(dtype), packed(weight.to(dtype), 32), bias.to(dtype)), expected
    )


def test_gradients_pass_through_a_product() -> None:
    x = torch.randn(
        4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(
        lambda x: linear(x, torch.eye(3, dtype=torch.float64), None, "silu"), x
    )
    single = x.detach().float().requires_grad_(True)
    linear(single, torch.eye(3)).sum().backward()
    assert single.grad is not None
    assert torch.equal(single.grad, torch.ones(4, 3))


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("learned", [True, False])
def test_gradients_of_single_precision_are_those_of_float64(
    activation: Activation, learned: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, slope = (
        torch.randn(*shape, generator=generator) for shape in ((2, 5, 16), (7, 16), (7,), (2, 5, 7))
    )
    leaves = {torch.float32: [x, weight, bias], torch.float64: []}
    leaves[torch.float64] = [each.double() for each in leaves[torch.float32]]
    for dtype, (own, matrix, added) in leaves.items():
        own.requires_grad_()
        for each in (matrix, added) if learned else ():
            each.requires_grad_()
        linear(own, matrix, added, activation).backward(slope.to(dtype))
    for single, double in zip(*leaves.values(), strict=True):
        assert (single.grad is None) == (double.grad is None)
        if double.grad is not None:
            torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_tuned_model_says_what_the_untuned_one_says(family: str) -> None:
    tokens = tiny_tokens()
    with torch.no_grad():
        expected = tiny_model(family)(tokens, use_cache=False).logits
    torch.testing.assert_close(
        logits(tiny_language_model(family), tokens), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_token_at_a_time_reads_what_a_whole_pass_reads(family: str, dtype: torch.dtype) -> None:
    """Grouped attention of single tokens, its masks, soft-caps and key-value cache."""
    lm = tiny_language_model(family)
    lm.model.to(dtype)
    keys = row_keys(0, "test", [(row,) for row in range(6)])
    parts: list[torch.Tensor] = []
    read = lambda resid, _: parts.append(resid)  # noqa: E731
    prompts = tiny_tokens(2, 4)
    drawn = generate(lm, prompts, None, HOOK, Sampling(), keys, 8, read)
    text = torch.cat([prompts.repeat_interleave(3, 0), drawn], 1)
    whole = capture(lm, text, [HOOK])[HOOK]
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.2}
    torch.testing.assert_close(torch.cat(parts, 1), whole, **close)
