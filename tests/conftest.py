"""Fixtures of more than one room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch has one thread while a file's tests run: tiny products are faster so."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run whole studies come first: two processes that take file by file then end
    together."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")
