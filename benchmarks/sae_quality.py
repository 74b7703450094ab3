"""End quality of SAEs at equal L0 beside SAELens, dictionary_learning and sparsify.

All libraries get the same batches, Adam and schedule, long enough for L0 to settle. Where L0 is not given but follows
from a price or a target, every library draws its own curve of explained variance over L0, and the curves are read at a
common L0, between two of their points and never beyond them.

    python benchmarks/sae_quality.py --peers .venv-interop [--architectures topk batchtopk standard jumprelu]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import torch
from saes import LIBRARIES, one, plant
from torch.nn.functional import normalize

D_MODEL, LATENTS, BATCH, ACTIVE = 128, 1024, 1024, 12
DISTINCT_BATCHES = 400
COMMON_L0 = 16.0
# Every library's own control of sparsity, and values that enclose the common L0.
CONTROLS: dict[str, tuple[str, list[float]]] = {
    "topk": ("k", [16]),
    "batchtopk": ("k", [12, 16, 24]),
    "standard": ("l1", [1e-2, 2e-2, 4e-2]),
    "jumprelu": ("target_l0", [12.0, 16.0, 24.0]),
}


def at_common_l0(points: list[dict[str, Any]]) -> float | None:
    """Explained variance where the curve crosses the common L0, linear in log L0; None where it does not."""
    curve = sorted((point["l0"], point["explained_variance"]) for point in points if "l0" in point)
    for (low, before), (high, after) in pairwise([*curve, *curve[-1:]]):
        if low == COMMON_L0:
            return before
        if low < COMMON_L0 <= high:
            return round(before + (after - before) * log(COMMON_L0 / low) / log(high / low), 4)
    return None


def main() -> None:
    """Measure all libraries and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--architectures", nargs="+", choices=CONTROLS, default=list(CONTROLS))
    parser.add_argument("--peers", type=Path, help="folder of the peers' environment; without, saeflow alone")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        s = {
            "d_model": D_MODEL,
            "d_sae": LATENTS,
            "batch": BATCH,
            "k": int(COMMON_L0),
            "steps": options.steps,
            "warmup": options.steps // 20,
            "decay": options.steps // 5,
            "learning_rate": 1e-3,
            "l1": 0.0,
            "l0": 0.0,
            "dtype": "float32",
            "threads": options.threads,
            "train": f"{folder}/train.npy",
            "held_out": f"{folder}/held_out.npy",
        }
        generator = torch.Generator().manual_seed(0)
        directions = normalize(torch.randn(LATENTS // 2, D_MODEL, generator=generator), dim=1)
        plant(Path(s["train"]), BATCH * DISTINCT_BATCHES, D_MODEL, directions, generator, ACTIVE)
        plant(Path(s["held_out"]), 8 * BATCH, D_MODEL, directions, generator, ACTIVE)
        found: dict[str, Any] = {}
        for architecture in options.architectures:
            control, values = CONTROLS[architecture]
            of_library: dict[str, Any] = {}
            for library in ["saeflow", *(LIBRARIES[architecture] if options.peers else [])]:
                own = library == "saeflow"
                python = sys.executable if own else options.peers / "bin/python"
                script = "saes.py" if own else "sae_peers.py"
                points = [
                    {control: value, **one(python, script, library, architecture, {**s, control: value})}
                    for value in values
                ]
                of_library[library] = {"points": points, "at_common_l0": at_common_l0(points)}
                print(json.dumps({architecture: {library: of_library[library]}}), file=sys.stderr, flush=True)
            found[architecture] = of_library
    print(json.dumps({"tokens": BATCH * options.steps, "common_l0": COMMON_L0, **found}, indent=2))


if __name__ == "__main__":
    main()
