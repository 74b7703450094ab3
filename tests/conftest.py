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
    """Files that run whole studies come first, so that processes that take file by file end
    together: at the very first the longest of those that share the finished study, which makes it,
    then files with studies of their own, so that no process waits for the finished one."""
    whole = {item.path for item in items if item.path.parent.name == "workflow"}
    whole |= {item.path for item in items if item.path.stem == "test_on_a_gpu"}
    shared = {item.path for item in items if "finished" in getattr(item, "fixturenames", ())}
    items.sort(
        key=lambda item: (
            item.path not in whole,
            item.path.stem != "test_partial_reruns",
            item.path in shared,
        )
    )
