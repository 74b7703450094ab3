"""What the largest tensor is that some operations make: how much memory grows with, without
measuring any."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation makes; a view of another
    or one that was changed in place is not made."""

    numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in _tensors((args, kwargs))}
        sizes = [
            leaf.numel() for leaf in _tensors(out) if leaf.untyped_storage().data_ptr() not in given
        ]
        self.numbers = max([self.numbers, *sizes])
        return out


def _tensors(values: Any) -> list[torch.Tensor]:
    """But for those that a library packed its own way, whose memory cannot be asked for."""
    leaves = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    return [leaf for leaf in leaves if not leaf.is_mkldnn]
