"""The pretended GPU refuses what a GPU refuses, and computes what the CPU computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pretended_cuda import Graph, pretended_cuda
from torch import Tensor, nn


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        (lambda x: x @ torch.ones(3, 3), "two devices"),
        (lambda x: x + torch.ones(3), "two devices"),
        (lambda x: torch.cat([x, torch.zeros(1, 3)]), "two devices"),
        (lambda x: torch.ones(3)[x[0].long()], "two devices"),
        (lambda x: x.numpy(), "convert cuda:0"),
        (lambda x: np.asarray(x), "convert cuda:0"),
        (lambda x: torch.rand(3, device=x.device, generator=torch.Generator()), "generator"),
    ],
)
def test_what_a_gpu_refuses_is_refused(mistake: Callable[[Tensor], object], complaint: str) -> None:
    with pretended_cuda(), pytest.raises((RuntimeError, TypeError), match=complaint):
        mistake(torch.ones(3, 3).to("cuda"))


def test_a_product_of_the_cpu_is_noted() -> None:
    with pretended_cuda() as gpu:
        x = torch.ones(9, 9, device="cuda")
        x @ x
        assert (gpu.of_gpu, gpu.of_cpu) == (1, [])
        x.cpu() @ torch.ones(9, 9)
        assert [product.shapes for product in gpu.of_cpu] == [[(9, 9), (9, 9)]]


def test_training_steps_are_those_of_the_cpu() -> None:
    def trained(device: str) -> Tensor:
        torch.manual_seed(0)
        layer, x = nn.Linear(4, 3).to(device), torch.arange(8.0).view(2, 4).to(device)
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            layer(x).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()
        return layer.weight.detach().cpu()

    with pretended_cuda():
        on_gpu = trained("cuda")
    assert torch.equal(on_gpu, trained("cpu"))


def test_a_graph_repeats_operations_in_their_memory_and_nothing_that_python_did() -> None:
    with pretended_cuda():
        x, added = torch.zeros(2, device="cuda"), []
        graph = Graph()
        with torch.cuda.graph(graph):
            y = x * 2 + 1
            added.append(1)
        x.fill_(3.0)
        graph.replay()
        assert y.tolist() == [7.0, 7.0]
        assert added == [1]
        with (
            pytest.raises(RuntimeError, match="not permitted when stream is capturing"),
            torch.cuda.graph(Graph()),
        ):
            float(x.sum())
