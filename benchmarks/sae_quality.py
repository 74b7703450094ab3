"""End quality of SAEs at equal L0 beside SAELens, dictionary_learning and sparsify.

All libraries get the same batches, Adam and schedule, long enough for L0 to settle. Where L0 is not
given but follows from a price or a target, a library is trained with other values until the common
L0 lies between two trainings, and its explained variance is read there, never beyond them.

    python benchmarks/sae_quality.py --peers .venv-interop [--architectures topk batchtopk standard
    jumprelu]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, NamedTuple

import torch
from saes import LIBRARIES, one, plant
from torch.nn.functional import normalize

D_MODEL, LATENTS, BATCH, ACTIVE = 128, 1024, 1024, 12
DISTINCT_BATCHES = 400
COMMON_L0 = 16.0
TRIALS = 4  # trainings of one library and architecture at most


class Control(NamedTuple):
    """What a library is told about sparsity: the setting's name, its first value, and the factor
    that lowers L0."""

    name: str
    first: float
    sparser: float


CONTROLS = {
    "topk": Control("k", 16, 1.0),
    "batchtopk": Control("k", 16, 0.75),
    "standard": Control("l1", 1.5e-2, 1.6),
    "jumprelu": Control("target_l0", 16.0, 0.75),
}


def trained(what: tuple[Any, ...], control: str, s: dict[str, Any], value: float) -> dict[str, Any]:
    """The result of one training with one value of the control."""
    return one(*what, {**s, control: value})


def around_common_l0(
    control: Control, train: Callable[[float], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Train with other values until the common L0 is hit or lies between two trainings."""
    points: list[dict[str, Any]] = []
    value = control.first
    while len(points) < TRIALS:
        point = {control.name: value, **train(value)}
        points.append(point)
        reached = [trial["l0"] for trial in points if "l0" in trial]
        if len(reached) < len(points) or (
            min(reached) <= COMMON_L0 <= max(reached) and len(points) > 1
        ):
            break
        if abs(point["l0"] / COMMON_L0 - 1) < 0.005:
            break
        value = control.first * control.sparser ** (
            len(points) * (1 if point["l0"] > COMMON_L0 else -1)
        )
        value = round(value) if control.name == "k" else value
    return points


def at_common_l0(points: list[dict[str, Any]]) -> float | None:
    """Explained variance at the common L0, linear in log L0 between two trainings; None where there
    are none."""
    curve = sorted((point["l0"], point["explained_variance"]) for point in points if "l0" in point)
    for low, value in curve:
        if abs(low / COMMON_L0 - 1) < 0.005:
            return value
    for (low, before), (high, after) in pairwise(curve):
        if low < COMMON_L0 < high:
            return round(before + (after - before) * log(COMMON_L0 / low) / log(high / low), 4)
    return None


def main() -> None:
    """Measure all libraries and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--architectures", nargs="+", choices=CONTROLS, default=list(CONTROLS))
    parser.add_argument(
        "--peers", type=Path, help="folder of the peers' environment; without, saeflow alone"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        s = {
            "d_model": D_MODEL,
            "d_sae": LATENTS,
            "batch": BATCH,
            "k": int(COMMON_L0),
            "steps": options.steps,
            "warmup": max(1, options.steps // 20),
            "decay": max(1, options.steps // 5),
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
        measured: dict[str, Any] = {}
        for architecture in options.architectures:
            control = CONTROLS[architecture]
            of_library: dict[str, Any] = {}
            for library in ["saeflow", *(LIBRARIES[architecture] if options.peers else [])]:
                own = library == "saeflow"
                python = sys.executable if own else options.peers / "bin/python"
                script = "saes.py" if own else "sae_peers.py"
                points = around_common_l0(
                    control,
                    partial(trained, (python, script, library, architecture), control.name, s),
                )
                of_library[library] = {"points": points, "at_common_l0": at_common_l0(points)}
                print(
                    json.dumps({architecture: {library: of_library[library]}}),
                    file=sys.stderr,
                    flush=True,
                )
            measured[architecture] = of_library
    print(
        json.dumps({"tokens": BATCH * options.steps, "common_l0": COMMON_L0, **measured}, indent=2)
    )


if __name__ == "__main__":
    main()
