"""Files of directions between models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from saeflow.artifacts import sealed
from saeflow.seals import stamp

if TYPE_CHECKING:
    from saeflow.analyses.diffing.differences import Differences


def save_difference(path: Path, measured: Differences, base: str, tuned: str, hook: str) -> None:
    """Write the mean difference between two models, that at the first positions, and its principal
    components, float32; ``mean`` is a vector that an analysis of directions may read."""
    tensors = {
        "mean": measured.mean.float().contiguous(),
        "by_position": measured.by_position.float().contiguous(),
        "components": measured.components.float().contiguous(),
    }
    said = {"base": base, "model": tuned, "hook": hook, "norm": measured.activation_norm}
    with sealed(path) as temporary:
        save_file(tensors, temporary, metadata={"metadata": json.dumps(said)} | stamp())
