"""What a process does with its share of an SAE: spawned processes import it by name."""

from __future__ import annotations

from pathlib import Path

import torch

from saeflow.errors import SaeflowError
from saeflow.saes.parallel import Share


def note(share: Share, folder: Path) -> None:
    total = int(share.total(torch.tensor(share.rank + 1)))
    (folder / f"{share.rank} of {share.world}, total {total}").touch()


def broken(share: Share) -> None:
    raise SaeflowError("sae: broken")
