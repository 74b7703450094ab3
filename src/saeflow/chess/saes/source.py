"""Boards as a source of activations."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from saeflow.activations.sources import ModuleSource
from saeflow.chess.games.examples import Examples
from saeflow.chess.player.maia2 import Maia2, token_mean
from saeflow.chess.player.planes import model_inputs


def board_source(model: Maia2, examples: Examples, tokens: Literal["mean", "all"]) -> ModuleSource:
    """Positions, each at the ratings of its players, and the model they run through; hooks are the
    model's sites.

    Args:
        model: in evaluation mode.
        examples: the positions; their planes take 4.6 kB each.
        tokens: ``mean`` keeps the mean over the model's tokens, ``all`` each of them.

    Returns:
        A source whose rows are led back to the number of the token, 0 where they are means.
    """
    inputs = model_inputs(examples, torch.device("cpu"))
    if tokens == "mean":
        return ModuleSource(model, inputs, np.zeros((len(examples.moves), 1), np.int32), token_mean)
    numbers = np.arange(model.shape.tokens, dtype=np.int32)
    return ModuleSource(model, inputs, np.tile(numbers, (len(examples.moves), 1)))
