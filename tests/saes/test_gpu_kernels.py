"""The GPU's compiled sums and products are those of torch's own operations; Triton's interpreter runs
them on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from checkout import ROOT

from saeflow.saes import gpu_kernels

pytest.importorskip("triton", reason="triton is not installed; it comes with torch for CUDA")

COMPARED = """
import sys
import torch
from saeflow.config.sections import SAETraining
from saeflow.saes import gpu_kernels, sparse
from saeflow.saes.sparse import decoded, encoded, scan
from saeflow.saes.architectures import architecture_of

torch.manual_seed(0)
width, n_latents, rows, k = map(int, sys.argv[1:])
x, target = torch.randn(2, rows, width)
weights = [torch.randn(n_latents, width), torch.randn(n_latents, width), torch.zeros(n_latents)]
entries = scan(x, weights[0], weights[2], sparse.Largest(k))
empty = entries.keep(entries.rows % 3 != 1)  # rows and latents without an entry, too

def gradients(entries):
    encoder, decoder, b_enc = (weight.clone().requires_grad_() for weight in weights)
    latents = encoded(x, encoder, b_enc, entries).relu()
    out = decoded(latents, entries, decoder)
    (out - target).square().mean().backward()
    return [out.detach(), encoder.grad, decoder.grad, b_enc.grad]

def both(entries):
    reference = gradients(entries)
    gpu_kernels.fits = lambda *tensors: True
    compiled = gradients(entries)
    again = gradients(entries)
    gpu_kernels.fits = lambda *tensors: False
    for a, b, c in zip(reference, compiled, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert torch.equal(b, c)

both(entries)
both(empty)
print("same")
"""


@pytest.mark.parametrize(
    ("width", "latents", "rows", "k"), [(24, 40, 12, 3), (1, 8, 5, 2), (1030, 16, 4, 2)]
)
def test_compiled_decoding_and_gradients_are_those_of_torch(
    width: int, latents: int, rows: int, k: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPARED, *map(str, (width, latents, rows, k))],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
    )
    assert done.stdout.strip() == "same", done.stderr[-3000:]


def test_the_kernels_are_for_float32_of_a_gpu_alone() -> None:
    assert not gpu_kernels.fits(torch.zeros(2, 2))
