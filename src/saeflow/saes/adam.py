"""Adam, block of latents by block of latents: a block's gradient is added up, followed and dropped
while it lies in the cache, so that no gradient of a whole matrix is ever written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from saeflow.saes.dictionary import ROWS_AT_ONCE, Dictionary
from saeflow.threads import lone_threads

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
# Of a block: on a CPU what its cache holds, on a GPU what is worth the start of a kernel.
_CPU_BYTES, _GPU_BYTES = 1 << 20, 1 << 26


class Adam:
    """Adam on the weights of a dictionary, with the bits of torch's own.

    Attributes:
        state: of every weight that has had a gradient: step, exp_avg and exp_avg_sq, as torch has
            them.

    Source: Kingma & Ba 2015, arXiv 1412.6980.
    """

    def __init__(self, weights: Dictionary, learning_rate: float, rates: Mapping[str, float]):
        """
        Args:
            weights: followed in place.
            learning_rate: at its peak.
            rates: of some weights, relative to that.
        """
        self.weights = weights
        self.peaks = {name: learning_rate * rates.get(name, 1.0) for name in weights.trained()}
        self.state: dict[str, dict[str, Tensor]] = {}

    def follow(self, share: float = 1.0) -> None:
        """Follow all gradients at this share of the peak learning rate and drop them; decoder rows
        stay of unit norm."""
        for name, tensor in self.weights.trained().items():
            if self.weights.has_gradient(name):
                self._follow(name, tensor.detach(), self.peaks[name] * share)
            elif name == "decoder":
                self.weights.project()
        self.weights.drop_gradients()

    def add_up(self) -> None:
        """Write as whole matrices the gradients that wait, for those of other batches to be added
        to."""
        for name, parts in self.weights.unsummed.items():
            if parts:
                tensor = self.weights.tensors()[name]
                total = torch.empty_like(tensor)

                def write(block: slice, name: str = name, total: Tensor = total) -> None:
                    total[block] = self.weights.gradient(name, block)

                each_block(total, write)
                tensor.grad = total
                parts.clear()

    def forget(self, latents: Int64[Tensor, " some"]) -> None:
        """Set the moments of some latents back to nothing."""
        for name, state in self.state.items():
            if name != "b_dec":
                for moment in (state["exp_avg"], state["exp_avg_sq"]):
                    moment[latents] = 0.0

    def _follow(self, name: str, tensor: Tensor, rate: float) -> None:
        if name not in self.state:
            moments = {key: torch.zeros_like(tensor) for key in ("exp_avg", "exp_avg_sq")}
            self.state[name] = {"step": tensor.new_zeros(()), **moments}
        state = self.state[name]
        state["step"] += 1

        @torch.no_grad()  # which every thread forgets
        def follow(block: slice) -> None:
            gradient = self.weights.gradient(name, block)
            if name == "decoder":
                self.weights.project_gradient(gradient, block)
            torch._fused_adam_(
                [tensor[block]],
                [gradient],
                [state["exp_avg"][block]],
                [state["exp_avg_sq"][block]],
                [],
                [state["step"]],
                lr=rate,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                weight_decay=0.0,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
            )
            if name == "decoder":
                self.weights.project(block)

        each_block(tensor, follow)


def each_block(tensor: Tensor, work: Callable[[slice], object]) -> None:
    """Work on all blocks of rows of a matrix, a thread of a CPU for each; a vector is one block."""
    blocks = _blocks(tensor)
    threads = torch.get_num_threads() if tensor.device.type == "cpu" else 1
    if min(threads, len(blocks)) == 1:
        for block in blocks:
            work(block)
        return
    with lone_threads(min(threads, len(blocks)), "saeflow-adam") as workers:
        list(workers.map(work, blocks))


def _blocks(tensor: Tensor) -> list[slice]:
    """Of as many rows as are projected at once, or a multiple of that: so no bit depends on how
    many blocks there are."""
    if tensor.ndim == 1:
        return [slice(0, len(tensor))]
    room = _CPU_BYTES if tensor.device.type == "cpu" else _GPU_BYTES
    rows = max(1, room // (tensor[:1].nbytes * ROWS_AT_ONCE)) * ROWS_AT_ONCE
    return [slice(start, min(start + rows, len(tensor))) for start in range(0, len(tensor), rows)]
