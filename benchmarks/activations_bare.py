"""The bare pass of `activations.py`: a GPT-2 by `transformers` alone, cut off after the layer; runs
in a process of its own and knows nothing of saeflow.

    activations_bare.py MODEL_FOLDER LAYER DTYPE TOKENS.npy BLOCKS_PER_PASS THREADS

Every line of standard input asks for one round over the first ``blocks`` of the tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from apart import Cost, answer, cost
from transformers import GPT2LMHeadModel


def main() -> None:
    """Answer with what each round takes."""
    folder, layer, dtype, file, blocks_per_pass, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().transformer
    model.h = model.h[: int(layer) + 1]
    tokens, step = np.load(file), int(blocks_per_pass)

    @torch.no_grad()
    def forward(blocks: int) -> None:
        for start in range(0, blocks, step):
            part = tokens[start : min(start + step, blocks)]
            model(torch.from_numpy(part).long(), use_cache=False)

    def work(what: Mapping[str, Any]) -> Cost:
        return cost(lambda: forward(what["blocks"]))

    answer(work)


if __name__ == "__main__":
    main()
