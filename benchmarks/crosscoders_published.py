"""The published training loops of crosscoders, for `crosscoders.py`, written anew from their
description in plain torch; runs in a process of its own and knows nothing of saeflow.

    crosscoders_published.py SETTINGS

SETTINGS is the JSON that `crosscoders.py` gives to both sides. Every line of standard input asks
for one training anew, of ``architecture``; the answer is what a step took.

``standard``: Kissane et al. 2024 after Lindsey et al. 2024: encoder and decoder per source, ReLU,
squared error plus activations times the sum of the sources' decoder norms, Adam, gradients clipped
at norm 1. ``batchtopk``: Minder, Dumas et al. 2025: activations times those sums compete within the
batch, k per row are left, decoded densely.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch
from apart import Cost, answer
from sae_peers import Batches
from torch import Tensor
from torch.nn.functional import normalize


def parameters(s: Mapping[str, Any]) -> dict[str, Tensor]:
    """Decoder rows of norm 0.08 per source, the encoder their transpose, biases zero."""
    decoder = 0.08 * normalize(torch.randn(s["d_sae"], s["sources"], s["d_model"]), dim=-1)
    tensors = {
        "encoder": decoder.permute(1, 2, 0).contiguous(),
        "decoder": decoder,
        "b_enc": torch.zeros(s["d_sae"]),
        "b_dec": torch.zeros(s["sources"], s["d_model"]),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def train(architecture: str, s: Mapping[str, Any]) -> Cost:
    """Train anew; what a settled step took."""
    torch.manual_seed(0)
    weights = parameters(s)
    optimiser = torch.optim.Adam(list(weights.values()), lr=s["learning_rate"], betas=(0.9, 0.999))
    batches = Batches(s["train"], s["batch"], s["steps"])
    for step in range(s["steps"]):
        x = next(batches)
        pre = torch.einsum("bsd,sdf->bf", x, weights["encoder"]) + weights["b_enc"]
        z = pre.relu()
        norms = weights["decoder"].norm(dim=-1).sum(dim=1)
        sparsity = torch.zeros(())
        if architecture == "batchtopk":
            worth = (z * norms).flatten()
            kept = worth.topk(s["k"] * len(x), sorted=False).indices
            mask = torch.zeros_like(worth).index_fill_(0, kept, 1.0)
            z = z * mask.view_as(z)
        else:
            price = min(1.0, step / max(1, 0.05 * s["steps"])) * s["l1"]
            sparsity = price * (z * norms).sum(dim=1).mean()
        rebuilt = torch.einsum("bf,fsd->bsd", z, weights["decoder"]) + weights["b_dec"]
        loss = (rebuilt - x).square().sum(dim=(1, 2)).mean() + sparsity
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        falling = (s["steps"] - step) / max(1, 0.2 * s["steps"])
        optimiser.param_groups[0]["lr"] = s["learning_rate"] * min(1.0, falling)
        optimiser.step()
        optimiser.zero_grad()
    batches.note()
    return batches.settled()


def main() -> None:
    """Answer with what a step of each training took."""
    s = json.loads(sys.argv[1])
    torch.set_num_threads(s["threads"])
    answer(lambda what: train(str(what["architecture"]), s))


if __name__ == "__main__":
    main()
