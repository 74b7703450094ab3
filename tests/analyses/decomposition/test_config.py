"""What decompositions are asked for and the rest of a study denies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from package_index import pip_environment, serving_packages
from steered import HOOK, tiny_lm
from studies import changed, study_config

from saeflow.analyses.decomposition.directions import read_contrasts
from saeflow.errors import SaeflowError
from saeflow.hub.labelled import fetch_labelled
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


def test_texts_of_a_contrast_come_from_a_package_as_those_of_probing_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "text,label\n" + "".join(f"the cat {i % 7},{'ab'[i % 2]}\n" for i in range(12))
    source = {"package": {"name": "sets", "version": "1.0", "file": "data/set.csv"}}
    contrasts = {"sea": {"texts": source, "positive": "a"}}
    config = changed(STUDY, {"decomposition.directions.contrasts": contrasts})
    study: Any = check_any_study(config)
    flow = workflow_of(study, ROOT, lambda path: path)
    own = flow.read["decomposition"]
    ((source_folder, wanted),) = (each for each in flow.labelled.items() if each[1].packages)
    assert "labelled" in flow.rule_files
    assert own.files.folders == [f"resources/published/{source_folder}/labelled"]
    monkeypatch.chdir(tmp_path)
    with serving_packages() as index:
        index.add("sets", "1.0", {"data/set.csv": rows.encode()})
        for name, value in pip_environment(index.url).items():
            monkeypatch.setenv(name, value)
        fetch_labelled(wanted, Path(own.files.folders[0]))
    option, _, file = own.options(None, None)[1].partition("=")
    asked = study.decomposition.directions
    activations, table = read_contrasts(tiny_lm(), HOOK, asked, {option: Path(file)}, seed=0)
    assert set(table["direction"]) == {"sea"}
    assert activations["sea"].positive.tolist() == [True, False] * 6
