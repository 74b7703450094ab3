"""The naive way to measure the effects of steering vectors, for `effects.py`; runs in a process of
its own and knows nothing of saeflow.

    effects_naive.py FOLDER THREADS DEVICE

FOLDER holds the model as `transformers` saves it, ``tensors.pt`` (the SAE's encoder, the vectors,
the evaluation text) and ``settings.json``. Every line of standard input names a vector.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from apart import Cost, answer, cost
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

SCAN = 11  # scales of the search
BATCH = 64


class Read(Exception):  # noqa: N818 - nothing is wrong
    """The layer has been read; those above it have nothing left to do."""


class Naive:
    """One vector at a time."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(device).eval()
        self.settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
        self.tensors: dict[str, Tensor] = {
            name: tensor.to(device) for name, tensor in torch.load(folder / "tensors.pt").items()
        }
        self.layer = self.model.get_submodule(self.settings["layer"])

    @contextmanager
    def hooked(self, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within the block, what the layer gives is another."""

        def hook(module: object, inputs: object, output: Any) -> Any:
            if isinstance(output, tuple):
                return function(output[0]), *output[1:]
            return function(output)

        handle = self.layer.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def steered(self, vector: Tensor, scale: float) -> Any:
        """Within the block, a multiple of a vector is added."""
        addition = (scale * vector).to(self.model.dtype)
        return self.hooked(lambda resid: resid + addition)

    def read(self, tokens: Tensor) -> Tensor:
        """What the layer gives for a text."""
        kept: list[Tensor] = []

        def keep(resid: Tensor) -> Tensor:
            kept.append(resid)
            raise Read

        with suppress(Read), self.hooked(keep):
            self.model(tokens, use_cache=False)
        return kept[0]

    def scale(self, vector: Tensor) -> float:
        """The first of the scales at which the loss is higher than wanted."""
        text = self.tensors["text"]
        scales = torch.linspace(0, self.settings["largest_scale"], SCAN).tolist()
        losses = []
        for scale in scales:
            with self.steered(vector, scale):
                logits = self.model(text).logits[:, :-1].float()
            losses.append(cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten()).item())
        above = (i for i, loss in enumerate(losses) if loss > self.settings["wanted_loss"])
        return scales[next(above, SCAN - 1)]

    def latents(self, resid: Tensor) -> Tensor:
        """Of a JumpReLU SAE."""
        pre = resid.float() @ self.tensors["W_enc"] + self.tensors["b_enc"]
        return torch.where(pre > self.tensors["threshold"], pre, 0.0).relu()

    @torch.no_grad()
    def means(self, vector: Tensor) -> Tensor:
        """Mean latent activations under one vector."""
        scale, samples = self.scale(vector), self.settings["samples"]
        total, rows = torch.zeros(self.tensors["W_enc"].shape[1], device=self.device), 0
        for prompt in self.settings["prompts"]:
            for first in range(0, samples, BATCH):
                batch = min(samples - first, BATCH)
                tokens = torch.tensor([prompt], device=self.device).repeat(batch, 1)
                with self.steered(vector, scale):
                    written = self.model.generate(
                        tokens,
                        attention_mask=torch.ones_like(tokens),
                        do_sample=True,
                        top_k=0,
                        min_new_tokens=self.settings["new_tokens"],
                        max_new_tokens=self.settings["new_tokens"],
                        pad_token_id=1,
                    )
                latents = self.latents(self.read(written)[:, tokens.shape[1] :])
                total += latents.mean(1).sum(0)
                rows += batch
        return total / rows


def main() -> None:
    """Answer with what each vector takes."""
    folder, threads, device = sys.argv[1:]
    torch.set_num_threads(int(threads))
    naive = Naive(Path(folder), device)
    synchronise = torch.cuda.synchronize if device != "cpu" else lambda: None

    def work(what: Mapping[str, Any]) -> Cost:
        vector = naive.tensors["vectors"][what["vector"]]
        return cost(lambda: naive.means(vector), synchronise)

    answer(work)


if __name__ == "__main__":
    main()
