"""Effects, vectors and approximators of strangers: what does not fit or is no number is told, each
in one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hub_server import environment, serving
from safetensors.torch import save_file

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.io import open_effects, read_approximation, save_approximation
from saeflow.analyses.effects.settings import Vectors
from saeflow.analyses.effects.sources import load_rows
from saeflow.analyses.steering.io import SteeringVector, load_vector, save_vector
from saeflow.errors import SaeflowError

HOOK = "blocks.0.hook_resid_post"
ROWS, D_MODEL, D_SAE = 8, 32, 48


def effects_file(path: Path, **changed: Any) -> Path:
    """A published table of effects with some data sets changed; one that is None is left out."""
    arrays = {
        "scale": np.ones(ROWS),
        "status": np.zeros(ROWS, np.uint8),
        "vector_id": np.arange(ROWS),
        "loss": np.ones(ROWS),
        "rollouts": np.ones(ROWS, np.int64),
        "vectors": np.eye(ROWS, D_MODEL, dtype="f4"),
        "effects": np.ones((ROWS, D_SAE), "f4"),
    }
    metadata = changed.pop("metadata", json.dumps({"hook": HOOK}))
    with h5py.File(path, "w") as file:
        for name, values in (arrays | changed).items():
            if callable(values):
                values(file)
            elif values is not None:
                file[name] = values
        if metadata is not None:
            file.attrs["metadata"] = metadata
    return path


def spoiled(value: float, row: int = 5) -> np.ndarray[Any, Any]:
    effects = np.ones((ROWS, D_SAE), "f4")
    effects[row, 7] = value
    return effects


def external(file: Any) -> None:
    secret = Path(file.filename).with_name("secret.bin")
    secret.write_bytes(b"\x7fnot for others" * 400)
    file.create_dataset(
        "effects", (ROWS, D_SAE), "f4", external=[(str(secret), 0, ROWS * D_SAE * 4)]
    )


EFFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"effects": spoiled(np.nan)}, "row 5 has effects that are not finite"),
    "infinity": ({"effects": spoiled(np.inf)}, "row 5 has effects that are not finite"),
    "fewer rows": ({"effects": np.ones((5, D_SAE), "f4")}, r"must be floats of shape \[8, width\]"),
    "one dimension": ({"effects": np.ones(ROWS, "f4")}, r"must be floats of shape \[8, width\]"),
    "whole numbers": ({"effects": np.ones((ROWS, D_SAE), "i4")}, "effects are int32 of shape"),
    "other columns": ({"loss": np.ones(3)}, r"loss has shape \[3\], where scale has 8 rows"),
    "no effects": ({"effects": None}, "is no whole table of effects"),
    "a group": ({"effects": lambda file: file.create_group("effects")}, "'effects' is no data set"),
    "bytes of a file of this machine": ({"effects": external}, "'effects' reads other files"),
    "numbers that are not there": (
        {
            "effects": lambda file: file.create_dataset(
                "effects", (10**7, 10**6), "f4", chunks=(1, 1024)
            )
        },
        "declares 40,000,000,00",
    ),
    "no metadata": ({"metadata": None}, "is no whole table of effects"),
    "metadata that are a list": ({"metadata": "[1]"}, "is no whole table of effects"),
    "metadata without a bottom": ({"metadata": "[" * 20_000}, "nested too deep"),
    "another hook": (
        {"metadata": json.dumps({"hook": "blocks.1.hook_resid_post"})},
        "is of blocks.1.hook_resid_post",
    ),
}


RUN = """
import json, sys
from pathlib import Path
import torch
from saeflow.config.sections import Published
from saeflow.analyses.effects.fetching import fetch_approximator, fetch_effects
from saeflow.errors import SaeflowError
for file, target in json.loads(sys.argv[1]):
    published, metadata = Published(repo="o/n", file=file), {"hook": "blocks.0.hook_resid_post"}
    try:
        if file.endswith(".h5"):
            fetch_effects(published, "effects.published", Path(target), metadata)
        else:
            fetch_approximator(published, "effects.approximator.published", Path(target), torch.zeros(48,
            32), metadata)
        print()
    except SaeflowError as error:
        print(repr(str(error)))
"""


def fetched(folder: Path, files: dict[str, bytes]) -> dict[str, tuple[str, Path]]:
    """What is said of each file when it is fetched from a hub, and where it would lie."""
    targets = {name: folder / "fetched" / name / name for name in files}
    with serving() as hub:
        hub.add("o/n", files)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                RUN,
                json.dumps([(name, str(target)) for name, target in targets.items()]),
            ],
            env={**os.environ, **environment(hub, folder / "home")},
            capture_output=True,
            text=True,
            check=True,
        )
    return dict(
        zip(files, zip(done.stdout.splitlines(), targets.values(), strict=True), strict=True)
    )


def test_published_effects_that_cannot_be_computed_with_are_not_fetched(tmp_path: Path) -> None:
    files = {
        f"{case}.h5": effects_file(tmp_path / "e.h5", **EFFECTS[case][0]).read_bytes()
        for case in EFFECTS
    }
    not_added = np.ones(ROWS)
    not_added[5] = 0
    good = effects_file(
        tmp_path / "e.h5", effects=spoiled(np.nan), scale=not_added
    )  # a row that is never looked at
    results = fetched(tmp_path, {**files, "good.h5": good.read_bytes()})
    said, merged = results.pop("good.h5")
    assert said == ""
    with open_effects(merged) as table:
        table.check_fits(D_MODEL, D_SAE)
        assert table.hook == HOOK
        with pytest.raises(SaeflowError, match="the effects have width 48, not 64"):
            table.check_fits(D_MODEL, 64)
        with pytest.raises(SaeflowError, match="the vectors have width 32, not 16"):
            table.check_fits(16, D_SAE)
    for name, (said, merged) in results.items():
        assert re.search(EFFECTS[name.removesuffix(".h5")][1], said), f"{name}: {said}"
        assert "\\n" not in said
        assert not merged.parent.exists()


def vector_file(path: Path, vector: torch.Tensor, metadata: Any) -> Path:
    text = metadata if isinstance(metadata, str) or metadata is None else json.dumps(metadata)
    save_file({"vector": vector}, path, metadata=None if text is None else {"metadata": text})
    return path


ONES = torch.ones(D_MODEL)
VECTORS: dict[str, tuple[torch.Tensor, Any, str]] = {
    "zeros": (
        torch.zeros(D_MODEL),
        {"hook": HOOK},
        "must be one row of finite numbers, not all zero",
    ),
    "a matrix": (torch.ones(2, D_MODEL), {"hook": HOOK}, "must be one row of finite numbers"),
    "NaN": (ONES * torch.nan, {"hook": HOOK}, "must be one row of finite numbers"),
    "whole numbers": (
        torch.ones(D_MODEL, dtype=torch.int64),
        {"hook": HOOK},
        "must be one row of finite numbers",
    ),
    "metadata that are a list": (ONES, [1], "is no whole steering vector"),
    "metadata that are no JSON": (ONES, "{", "is no whole steering vector"),
    "metadata without a bottom": (ONES, '{"a":' * 20_000, "nested too deep"),
    "a norm that is a text": (
        ONES,
        {"hook": HOOK, "norm": "x"},
        "its norm is 'x' and must be a positive number",
    ),
    "an infinite norm": (
        ONES,
        '{"norm": Infinity}',
        "its norm is 'inf' and must be a positive number",
    ),
    "a negative norm": (ONES, {"norm": -1.0}, "must be a positive number"),
}


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_that_cannot_steer_is_one_sentence(tmp_path: Path, case: str) -> None:
    vector, metadata, message = VECTORS[case]
    with pytest.raises(SaeflowError, match=message) as refusal:
        load_vector(vector_file(tmp_path / "vector.safetensors", vector, metadata))
    assert "\n" not in str(refusal.value)


def test_a_vector_says_where_it_is_added_or_is_refused_and_fits_one_width(tmp_path: Path) -> None:
    for metadata in (None, {}, {"hook": [1]}):
        bare = load_vector(vector_file(tmp_path / "vector.safetensors", ONES, metadata))
        assert (bare.goal, bare.method, bare.norm) == ("", "", 1.0)
        with pytest.raises(SaeflowError, match="does not say at which hook it is added"):
            _ = bare.hook
    save_vector(
        tmp_path / "ours.safetensors",
        SteeringVector(ONES, {"hook": HOOK, "goal": "g", "method": "m"}),
    )
    ours = load_vector(tmp_path / "ours.safetensors")
    assert (ours.hook, ours.goal, ours.method) == (HOOK, "g", "m")
    assert torch.equal(ours.of_width(D_MODEL), ONES)
    with pytest.raises(
        SaeflowError, match="the vector has 32 numbers, and the model's width is 64"
    ):
        ours.of_width(64)


def approximation(**changed: torch.Tensor) -> Approximation:
    draw = torch.Generator().manual_seed(0)
    whole = Approximation.of(
        torch.randn(D_MODEL, D_SAE, generator=draw),
        torch.zeros(D_SAE),
        torch.randn(D_SAE, D_MODEL, generator=draw),
    )
    return whole._replace(**changed)


def test_vectors_to_measure_that_are_no_vectors_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    rows = Vectors(kind="file", path=str(path), tensor="vectors")
    first = Vectors(kind="sae_ts", path=str(path))
    deep = {"metadata": "[" * 20_000}
    for tensors, metadata, settings, message in (
        (
            {"vectors": torch.ones(3, D_MODEL, dtype=torch.int32)},
            None,
            rows,
            "vectors holds numbers of type int32",
        ),
        ({"vectors": torch.ones(3, D_MODEL)}, deep, rows, "nested too deep"),
        (
            {"vectors": torch.ones(3, D_MODEL)},
            {"metadata": '{"hook": "x"}'},
            rows,
            "is from hook 'x'",
        ),
        ({"vectors": torch.ones(3, 7)}, None, rows, "its vectors are 7 wide and the model 32"),
        ({"M": torch.ones(D_MODEL, 3)}, None, first, "lacks a tensor"),
    ):
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(SaeflowError, match=message) as refusal:
            load_rows(settings, path, HOOK, D_MODEL)
        assert "\n" not in str(refusal.value)
    save_file({"vectors": torch.ones(3, D_MODEL)}, path, metadata={"metadata": "[1]"})
    assert load_rows(rows, path, HOOK, D_MODEL).shape == (3, D_MODEL)


APPROXIMATIONS = [
    ({"b": torch.zeros(7)}, r"b \[7\] must be finite floats of shape \[48\]"),
    ({"M": torch.zeros(D_MODEL)}, r"M \[32\] must be finite floats"),
    ({"M": torch.full((D_MODEL, D_SAE), torch.nan)}, "M .+ must be finite floats"),
    (
        {"rotation": torch.zeros(D_MODEL, 3)},
        r"rotation \[32, 3\] must be finite floats of shape \[32, 32\]",
    ),
    (
        {"correction": torch.zeros(D_MODEL, dtype=torch.int32)},
        "correction .+ must be finite floats",
    ),
]


def test_an_approximator_whose_tensors_do_not_fit_each_other_is_one_sentence(
    tmp_path: Path,
) -> None:
    files = {}
    for number, (changed, message) in enumerate(APPROXIMATIONS):
        save_approximation(tmp_path, approximation(**changed), {"hook": HOOK})
        path = tmp_path / "approximator.safetensors"
        with pytest.raises(SaeflowError, match=message):
            read_approximation(path)
        files[f"{number}.safetensors"] = path.read_bytes()
    for (_, message), (said, target) in zip(
        APPROXIMATIONS, fetched(tmp_path, files).values(), strict=True
    ):
        assert re.search(message, said)
        assert not target.parent.exists()
