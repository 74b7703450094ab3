"""The latents of one SAE spread over processes: every process has a share of them, and the same
batches.

Reconstructions, and the few numbers that decide which latents are active, are added up or compared
over all processes; every other product of a step stays where its latents are.
"""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.multiprocessing.spawn import ProcessRaisedException, spawn
from torch.nn.functional import pad

from saeflow.errors import SaeflowError


class TensorParallel(NamedTuple):
    """Which latents this process has; alone it has all, and nothing is communicated.

    Attributes:
        rank: of this process.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    def latents(self, d_sae: int) -> slice:
        """This process's latents.

        Raises:
            SaeflowError: they cannot be shared equally.
        """
        if d_sae % self.world:
            raise SaeflowError(
                f"sae: {d_sae} latents cannot be shared by {self.world} processes; take a divisor"
            )
        size = d_sae // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def device(self, kind: str) -> str:
        """This process's accelerator among those of the host, or the CPU."""
        return f"{kind}:{self.rank}" if kind == "cuda" and self.world > 1 else kind

    def all_sum(self, value: Tensor) -> Tensor:
        """The sum over processes; its gradient is each process's own, for what follows is the same
        in all."""
        return value if self.world == 1 else _AllSum.apply(value)  # type: ignore[no-untyped-call]

    def all_count(self, number: int) -> int:
        """The sum of a number over processes."""
        return number if self.world == 1 else int(self.all_sum(torch.tensor(number)))

    def all_min(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The least over processes."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value, distributed.ReduceOp.MIN)
        return value

    def all_gather(self, value: Tensor, dim: int = 0) -> Tensor:
        """The processes' values, of equal shapes, one after the other."""
        if self.world == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts, dim)

    def kth_largest(self, values: Float[Tensor, "*rows some"], k: int) -> Float[Tensor, "*rows 1"]:
        """The k-th largest of every row, over processes.

        Args:
            values: this process's, among them its k largest, or all it has; -inf counts as none.
        """
        fewer, place = min(k, values.shape[-1]), values.shape[-1] - k
        if self.world == 1 and place > 0 and values.device.type == "cpu" and values.ndim == 1:
            # NumPy's search takes half as long where there are many.
            return torch.from_numpy(np.partition(values.numpy(), place)[place : place + 1])
        largest = pad(values.topk(fewer, sorted=False).values, (0, k - fewer), value=-torch.inf)
        if self.world > 1:
            largest = self.all_gather(largest, dim=-1).topk(k, sorted=False).values
        return largest.amin(dim=-1, keepdim=True)


ALONE = TensorParallel()


def spread(processes: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call ``work(parallel, *arguments)`` in so many processes of this host; alone, in this one.

    Raises:
        SaeflowError: there are fewer accelerators than processes, or what the work raises.
    """
    if processes == 1:
        work(ALONE, *arguments)
        return
    n_devices = torch.cuda.device_count()
    if 0 < n_devices < processes:
        raise SaeflowError(
            f"sae: {processes} processes want a GPU each, this host has {n_devices}; take fewer"
        )
    with TemporaryDirectory() as folder:
        try:
            its_arguments = (processes, f"file://{folder}/rendezvous", work, arguments)
            spawn(_joined_in, its_arguments, nprocs=processes)  # type: ignore[no-untyped-call]
        except ProcessRaisedException as error:
            kind, _, reason = str(error).strip().splitlines()[-1].partition(": ")
            if kind.endswith(SaeflowError.__name__):
                raise SaeflowError(reason) from None
            raise


def _joined_in(
    rank: int, world: int, rendezvous: str, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    distributed.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=world)
    try:
        work(TensorParallel(rank, world), *arguments)
    finally:
        distributed.destroy_process_group()


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
