"""A chosen direction is found again at any layer that was read, with what it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from saeflow.analyses.directions.candidates import unit
from saeflow.analyses.directions.io import (
    PROMPTS,
    Direction,
    StoredActivations,
    save_activations,
    save_direction,
)
from saeflow.analyses.directions.placing import placed
from saeflow.errors import SaeflowError
from saeflow.tables import write_table

LABELS = ["on", "off"] * 10
SPLITS = ["train"] * 12 + ["validation"] * 2 + ["test"] * 6
KEPT = [number != 3 for number in range(20)]
LEARNED = [split == "train" and keep for split, keep in zip(SPLITS, KEPT, strict=True)]


def values_of(model: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(model))
    return torch.randn(20, 2, 3, 8, generator=generator)


def written(folder: Path, vector: torch.Tensor, **said: Any) -> Path:
    """The files of two models, and of a direction of the first at layer 4, position last."""
    for model in ("organism", "base"):
        stored = StoredActivations(values_of(model), ["first", "last"], [2, 4, 5])
        save_activations(folder / model / "activations.safetensors", stored)
        table = {
            "prompt": range(20),
            "label": LABELS,
            "split": SPLITS,
            "group": range(20),
            "tokens": [5] * 20,
            "log_odds": [0.0] * 20,
            "kept": KEPT,
        }
        write_table(folder / model / "prompts.parquet", pl.DataFrame(table), PROMPTS)
    metadata = {
        "name": "refusal",
        "model": "organism",
        "position": "last",
        "between": ["on", "off"],
        "models": [],
    } | said
    none = torch.zeros(0, 8)
    direction = Direction(vector, 4, 1.5, none, none, [], [], metadata)
    save_direction(folder / "organism/refusal/direction.safetensors", direction)
    return folder / "organism/refusal/direction.safetensors"


def mean(model: str, label: str, layer: int) -> torch.Tensor:
    chosen = [n for n in range(20) if LEARNED[n] and LABELS[n] == label]
    return values_of(model)[chosen, 1, layer].double().mean(0)


def test_at_its_own_layer_a_direction_is_as_it_was_chosen(tmp_path: Path) -> None:
    vector = unit(mean("organism", "on", 1) - mean("organism", "off", 1))
    own = placed(written(tmp_path, vector.float(), classes=["on", "off"]), 4)
    assert own.gap == 1.5
    torch.testing.assert_close(own.vector, vector, atol=1e-6, rtol=0)
    assert own.contrast is not None
    difference = own.contrast.part(held_out=False).difference
    torch.testing.assert_close(unit(difference), vector, atol=1e-6, rtol=0)
    assert own.contrast.held_out.sum() == 6  # validation prompts are neither


def test_at_another_layer_it_is_the_difference_there(tmp_path: Path) -> None:
    own = placed(written(tmp_path, torch.ones(8), classes=["on", "off"]), 5)
    difference = mean("organism", "on", 2) - mean("organism", "off", 2)
    torch.testing.assert_close(own.vector, unit(difference), atol=1e-6, rtol=0)
    assert own.gap == pytest.approx(float(difference.norm()), rel=1e-6)


def test_a_difference_of_models_is_between_what_both_hold_of_the_same_prompts(
    tmp_path: Path,
) -> None:
    both = ["organism", "base"]
    own = placed(written(tmp_path, torch.ones(8), classes=["on"], models=both), 2)
    assert own.contrast is not None
    rows = own.contrast.part(held_out=False)
    assert (int(rows.positive.sum()), len(rows.positive)) == (6, 12)
    expected = mean("organism", "on", 0) - mean("base", "on", 0)
    torch.testing.assert_close(rows.difference, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(own.vector, unit(expected), atol=1e-6, rtol=0)


def test_a_layer_of_which_nothing_is_known_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match=r"'refusal' was not read after layer 3; name that"):
        placed(written(tmp_path, torch.ones(8), classes=["on", "off"]), 3)
    with pytest.raises(SaeflowError, match="was not read after layer 5"):
        placed(written(tmp_path, torch.ones(8), classes=[]), 5)
    assert placed(written(tmp_path, torch.ones(8), classes=[]), 4).contrast is None
