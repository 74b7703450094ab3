"""SAEs with hooks of their own: what is cached for them, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saeflow.config.reading import check_study, read_study
from saeflow.errors import SaeflowError

ROOT = Path(__file__).parents[2]
STEERED, EARLY, LATE = (f"blocks.{layer}.hook_resid_post" for layer in (1, 0, 3))


def study_with(saes: dict[str, Any], **changes: Any) -> Any:
    values = read_study(ROOT / "config.yaml").model_dump()
    return check_study(values | {"saes": saes} | changes)


def test_every_hook_where_an_sae_is_trained_is_cached_once():
    saes = {"main": {"train": {}}, "late": {"train": {}, "hook": LATE}, "again": {"train": {"k": 4}, "hook": LATE}}
    study = study_with(saes, activations={"hooks": [EARLY]})
    assert study.hooks == [STEERED, EARLY, LATE]
    assert [study.hook_of(name) for name in saes] == [STEERED, LATE, LATE]
    assert study.last_layer == 3


def test_the_hook_of_an_imported_sae_is_not_cached_for_it():
    study = study_with({"main": {"train": {}}, "other": {"path": "somewhere", "hook": LATE}})
    assert (study.hooks, study.hook_of("other")) == ([STEERED], LATE)


@pytest.mark.parametrize(
    ("saes", "key", "reason"),
    [
        ({"main": {"train": {}, "hook": LATE}}, "saes.main.hook", f"is not the study's hook '{STEERED}'"),
        (
            {"main": {"train": {}}, "far": {"train": {}, "hook": "blocks.4.hook_mlp_out"}},
            "saes.far.hook",
            "layer 4 does not exist; model.train.n_layers is 4",
        ),
        ({"main": {"train": {}}, "far": {"train": {}, "hook": "middle"}}, "saes.far.hook", "TransformerLens name"),
        (
            {"main": {"train": {}, "group": "all"}, "late": {"train": {}, "hook": LATE, "group": "all"}},
            "saes.late.hook",
            f"'{LATE}' is not '{STEERED}' as in 'main' of the same group",
        ),
    ],
)
def test_a_hook_that_cannot_be_read_is_told_by_its_key(saes, key, reason):
    with pytest.raises(SaeflowError) as told:
        study_with(saes)
    [line] = str(told.value).splitlines()
    assert line.startswith(f"config: {key}: ")
    assert reason in line
