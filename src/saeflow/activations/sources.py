"""What can be cached: items that run through a model, with activations at places that have
names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn

from saeflow.models.language_model import LanguageModel
from saeflow.models.modules import capture_modules, twin
from saeflow.models.running import capture


class Source(Protocol):
    """Items and the model they run through: blocks of text and a language model, boards and a chess
    model, …"""

    @property
    def tokens(self) -> Int32[np.ndarray, "items pos"]:
        """What a row is led back to: the token, or what a model of another kind has at that
        position."""

    @property
    def device(self) -> torch.device:
        """Where the model runs."""

    def activations(
        self, items: slice, hooks: Sequence[str]
    ) -> dict[str, Float[Tensor, "items pos width"]]:
        """The activations of some items at the hooks, from one forward pass that stops at the last
        of them.

        Raises:
            SaeflowError: the model has no such hook.
        """

    def twin(self) -> Self:
        """The same items and weights in modules of its own: two threads may run both at once."""


@dataclass(frozen=True)
class TextSource:
    """Blocks of tokens and a language model; hooks are TransformerLens names."""

    lm: LanguageModel
    tokens: Int32[np.ndarray, "items pos"]

    @property
    def device(self) -> torch.device:
        return self.lm.device

    def activations(
        self, items: slice, hooks: Sequence[str]
    ) -> dict[str, Float[Tensor, "items pos width"]]:
        return capture(
            self.lm, torch.from_numpy(self.tokens[items]).long().to(self.lm.device), hooks
        )

    def twin(self) -> TextSource:
        return replace(self, lm=replace(self.lm, model=twin(self.lm.model)))


@dataclass(frozen=True)
class ModuleSource:
    """Tensors and any torch model; hooks are paths of its modules, whose outputs are read.

    Attributes:
        model: in evaluation mode.
        inputs: the model's positional arguments, items first; they go to its device pass by pass.
        tokens: what each row is led back to; a module that gives one row per item has one position.
        pooled: what becomes of a module's output before it is kept, such as a mean over its rows.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    tokens: Int32[np.ndarray, "items pos"]
    pooled: Callable[[Tensor], Tensor] = lambda output: output

    @property
    def device(self) -> torch.device:
        return next((weight.device for weight in self.model.parameters()), self.inputs[0].device)

    def activations(
        self, items: slice, hooks: Sequence[str]
    ) -> dict[str, Float[Tensor, "items pos width"]]:
        inputs = tuple(tensor[items].to(self.device) for tensor in self.inputs)
        read = capture_modules(self.model, inputs, hooks)
        n_positions = self.tokens.shape[1]
        return {
            hook: self.pooled(tensor).reshape(len(tensor), n_positions, -1)
            for hook, tensor in read.items()
        }

    def twin(self) -> ModuleSource:
        return replace(self, model=twin(self.model))
