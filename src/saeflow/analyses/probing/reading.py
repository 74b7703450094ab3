"""Activations and latents of the rows of a set: one pass of the model for all probes and SAEs.

Latents are pooled batch by batch and kept as sparse matrices; the dense latents of more than a
batch are never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from saeflow.analyses.probing.rows import Representations
from saeflow.analyses.probing.settings import Reading
from saeflow.analyses.probing.sparse_columns import Latents
from saeflow.errors import SaeflowError
from saeflow.models.chat import prompt_text, template_length
from saeflow.models.language_model import LanguageModel
from saeflow.models.reading import read_rows
from saeflow.saes.sae import SAE

_TOKENS_PER_PASS = 2048
_LATENTS_AT_ONCE = 1 << 24


def tokeniser(lm: LanguageModel) -> Callable[[Sequence[object]], list[tuple[str, list[int]]]]:
    """What gives text and tokens of prompts, without BOS."""

    def tokenise(prompts: Sequence[object]) -> list[tuple[str, list[int]]]:
        texts = [prompt_text(prompt, lm.tokenizer) for prompt in prompts]  # type: ignore[arg-type]
        ids = lm.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return list(zip(texts, ids, strict=True))

    return tokenise


@torch.no_grad()
def represent(
    lm: LanguageModel,
    tokens: Sequence[Sequence[int]],
    reading: Reading,
    hooks: Sequence[str],
    saes: Mapping[str, tuple[str, SAE]],
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Representations:
    """Read activations and latents of texts.

    Args:
        lm: the model.
        tokens: of each text, BOS first.
        reading: at which positions, and how several become one.
        hooks: whose activations are kept.
        saes: by name, where each reads and the SAE, on the model's device.
        progress: is told how many rows are done, and of how many.

    Raises:
        SaeflowError: a position does not exist, or the model gives NaN.
    """
    template = template_length(lm.tokenizer) if reading.position.startswith("template") else 0
    read = list(dict.fromkeys([*hooks, *(hook for hook, _ in saes.values())]))
    order: list[int] = []
    kept: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    parts: dict[str, list[Latents]] = {name: [] for name in saes}
    for batch, seen in read_rows(
        lm, tokens, reading.position, read, [template] * len(tokens), _TOKENS_PER_PASS
    ):
        for hook in hooks:
            kept[hook].append(_pooled(seen[hook], reading.pool).cpu())
        for name, (hook, sae) in saes.items():
            parts[name] += list(_latents(seen[hook], sae, reading.pool))
        order += batch
        progress(len(order), len(tokens))
    back = np.argsort(order)
    activations = {hook: torch.cat(rows).numpy()[back] for hook, rows in kept.items()}
    for hook, rows in activations.items():
        if not np.isfinite(rows).all():
            raise SaeflowError(
                f"probing: the model gives NaN or infinity at {hook}; check its weights, or set "
                "model.dtype to bfloat16 or float32"
            )
    latents = {name: sparse.csr_array(sparse.vstack(rows))[back] for name, rows in parts.items()}
    return Representations(activations, latents)


def _pooled(seen: Float[Tensor, "rows pos width"], pool: str) -> Float[Tensor, "rows width"]:
    return seen.mean(dim=1) if pool == "mean" else seen.amax(dim=1)


def _latents(seen: Float[Tensor, "rows pos d_model"], sae: SAE, pool: str) -> Iterator[Latents]:
    """Pooled latents of some rows, a few rows at a time."""
    at_once = max(1, _LATENTS_AT_ONCE // (seen.shape[1] * sae.d_sae))
    for rows in torch.split(seen, at_once):
        pooled = _pooled(sae.encode(rows), pool)
        yield sparse.csr_array(pooled.float().cpu().numpy())
