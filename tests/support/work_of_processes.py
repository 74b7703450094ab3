"""What a process does with its share of an SAE: spawned processes import it by name."""

from __future__ import annotations

from pathlib import Path

import torch

from saeflow.errors import SaeflowError
from saeflow.saes.parallel import TensorParallel


def note(parallel: TensorParallel, folder: Path) -> None:
    total = int(parallel.all_sum(torch.tensor(parallel.rank + 1)))
    (folder / f"{parallel.rank} of {parallel.world}, total {total}").touch()


def broken(parallel: TensorParallel) -> None:
    raise SaeflowError("sae: broken")
