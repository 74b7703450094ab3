"""Unsigned scores of token sets the published way, in a process of its own: see `logit_lens.py`.

    python benchmarks/lens_published.py FOLDER THREADS

FOLDER holds ``tensors.pt``: logit weights ``[latents, tokens]`` and masks ``[sets, tokens]``; the
scores of the last call are left in ``scores.pt``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from apart import Cost, answer, cost
from torch import Tensor


def published(weights: Tensor, masks: Tensor) -> Tensor:
    """Unsigned scores ``[sets, latents]``: sort, look all tokens up in all sets, add up,
    compare."""
    latents, tokens = weights.shape
    order = weights.sort(dim=1, descending=True).indices
    shape = (len(masks), latents, tokens)
    hits = torch.gather(masks[:, None].expand(shape), 2, order[None].expand(shape))
    sizes = masks.sum(dim=1)[:, None, None].float()
    return torch.where(hits, 1 / sizes, -1 / (tokens - sizes)).cumsum(dim=2).abs().max(dim=2).values


def main() -> None:
    """Score once per call."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    given = torch.load(folder / "tensors.pt")

    def work(_: Mapping[str, object]) -> Cost:
        scores: list[Tensor] = []
        taken = cost(lambda: scores.append(published(given["weights"], given["masks"])))
        torch.save(scores[0], folder / "scores.pt")
        return taken

    answer(work)


if __name__ == "__main__":
    main()
