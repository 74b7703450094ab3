"""How faithful an SAE of a chess model is: to the activations, and to the moves that the model
chooses."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import kl_div

from saeflow.activations.store import merge, statistics
from saeflow.chess.games.examples import Examples
from saeflow.chess.player.maia2 import Maia2, token_mean
from saeflow.chess.player.planes import legal_mask, mask_illegal, model_inputs
from saeflow.models.modules import capture_modules
from saeflow.saes.evaluation import Fidelity, Sums, fidelity_metrics, with_errors
from saeflow.saes.sae import SAE

BOARDS_AT_ONCE = 256


@torch.no_grad()
def evaluate_on_boards(
    model: Maia2, sae: SAE, hook: str, tokens: Literal["mean", "all"], examples: Examples
) -> dict[str, float]:
    """Sparsity, reconstruction, and what it does to the choice of moves to have the reconstruction
    in its place.

    Where the SAE reads the mean of the tokens, their mean becomes its reconstruction and their
    differences stay. Every position is looked at with the ratings of its players; standard errors
    are over games.

    Args:
        model: in evaluation mode.
        sae: reads ``hook``; on the model's device.
        hook: a site of the model.
        tokens: what the SAE reads there.
        examples: held-out positions, those of one game together.

    Returns:
        What `fidelity_metrics` gives, ``dead`` and ``dense`` latents, and over legal moves:
        ``loss_clean`` and ``loss_sae`` of the moves that were played, ``kl`` from the clean choice,
        ``agreement`` of the two most probable moves; each with its standard error ``…_se``.
    """
    starts = list(range(0, len(examples.moves), BOARDS_AT_ONCE))
    parts = [examples.part(slice(start, start + BOARDS_AT_ONCE)) for start in starts]
    seen = [_read(model, hook, tokens, part) for part in parts]
    mean = torch.from_numpy(merge(statistics(x.flatten(0, 1)) for x in seen).mean)
    fidelity = Fidelity(mean, sae.W_dec.shape[0], len(examples.moves))
    sums: defaultdict[str, list[Float64[np.ndarray, " boards"]]] = defaultdict(list)
    for start, part, x in zip(starts, parts, seen, strict=True):
        latents = sae.encode(x)
        reconstruction = sae.reconstruct(x, latents)
        board = (start + torch.arange(len(x))).repeat_interleave(x.shape[1])
        fidelity.add(x.flatten(0, 1), reconstruction.flatten(0, 1), latents.flatten(0, 1), board)
        for name, values in _choices(model, hook, part, reconstruction - x).items():
            sums[name].append(values)
    per_board = {
        **fidelity.sums(),
        **{name: np.concatenate(values) for name, values in sums.items()},
    }
    games = np.unique(examples.games, return_inverse=True)[1]
    per_game = {name: np.bincount(games, values) for name, values in per_board.items()}

    def metrics(of: Sums) -> dict[str, Any]:
        chosen = {
            name: of[name] / of["boards"] for name in ("loss_clean", "loss_sae", "kl", "agreement")
        }
        return fidelity_metrics(of, len(mean)) | chosen

    return with_errors(per_game, metrics) | fidelity.latents() | {"positions": len(examples.moves)}


def _read(model: Maia2, hook: str, tokens: Literal["mean", "all"], examples: Examples) -> Tensor:
    read = capture_modules(model, model_inputs(examples, model.device), [hook])[hook]
    return token_mean(read) if tokens == "mean" else read


def _choices(
    model: Maia2, hook: str, examples: Examples, change: Tensor
) -> dict[str, Float64[np.ndarray, " boards"]]:
    """Losses, divergence and agreement of the model as it is and with a change added at the
    hook."""
    legal, moves = legal_mask(examples.boards), torch.from_numpy(examples.moves.astype(np.int64))
    clean = _log_probs(model, examples, legal)
    handle = model.get_submodule(hook).register_forward_hook(
        lambda _module, _inputs, output: output + change
    )
    try:
        changed = _log_probs(model, examples, legal)
    finally:
        handle.remove()
    finite = clean.masked_fill(~legal, -1e4), changed.masked_fill(~legal, -1e4)
    per_board = {
        "loss_clean": -clean.gather(1, moves[:, None])[:, 0],
        "loss_sae": -changed.gather(1, moves[:, None])[:, 0],
        "kl": kl_div(finite[1], finite[0], reduction="none", log_target=True).sum(dim=1),
        "agreement": (clean.argmax(dim=1) == changed.argmax(dim=1)).double(),
        "boards": torch.ones(len(moves), dtype=torch.float64),
    }
    return {name: values.numpy() for name, values in per_board.items()}


def _log_probs(model: Maia2, examples: Examples, legal: Tensor) -> Tensor:
    raw = model(*model_inputs(examples, model.device)).moves.cpu()
    return mask_illegal(raw, legal).double().log_softmax(dim=1)
