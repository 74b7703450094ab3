"""What decompositions are asked for and the rest of a study denies."""

from __future__ import annotations

from typing import Any

import pytest
from checkout import ROOT
from studies import changed, study_config

from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study, workflow_of

STUDY = study_config("on-a-gpu")
MEASURED = "decomposition.directions.measured"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"directions": None}, f"{MEASURED}.cooking: is of the analysis directions, which is not"),
        ({MEASURED: {"sea": {}}}, f"{MEASURED}.sea: is no direction; directions.sources names coo"),
        (
            {"directions.selection.layers": [1]},
            f"{MEASURED}.cooking: is not read after layer 0 of the study's hook; add it in direct",
        ),
        (
            {
                "directions.selection.layers": [0, 1],
                "directions.sources": {
                    "vector": {"cooking": {"path": "v.npz", "hook": "blocks.1.hook_resid_post"}}
                },
            },
            f"{MEASURED}.cooking: is at blocks.1.hook_resid_post, and SAEs are at the study's hoo",
        ),
        ({MEASURED: {}}, "decomposition.edits: edit directions.measured, which names none"),
        (
            {"decomposition.edits.latents": [2, 9]},
            "decomposition.edits.latents.1: 9 is more than curves.latents 4; lower it",
        ),
    ],
)
def test_a_measured_direction_that_is_not_there_is_a_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SaeflowError) as raised:
        check_any_study(changed(STUDY, changes))
    assert sentence in str(raised.value)


def test_sums_stand_in_for_directions_of_every_model_in_every_sae() -> None:
    flow = workflow_of(check_any_study(STUDY), ROOT, lambda path: path)
    edits = [path for path in flow.files(*flow.outputs("decomposition")) if "edits" in path]
    assert "results/on-a-gpu/decomposition/elsewhere/other/cooking/edits.parquet" in edits
    saes = flow.names["decomposed_sae"]
    assert {"topk", "elsewhere"} <= set(saes)
    assert "transcoder" not in saes
    assert len(edits) == len(saes) * 2
