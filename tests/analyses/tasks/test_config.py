"""What is asked of tasks and cannot be done is told before any job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from studies import changed, study_config

from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study, workflow_of

STUDY = study_config("on-a-gpu")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"tasks.cleaning.saes": ["models"]},
            "tasks.cleaning.saes: 'models' is no SAE of 'lm' at a hook_resid_post; name one of",
        ),
        ({"tasks.cleaning.saes": ["elsewhere"]}, "'elsewhere' is no SAE of 'lm'"),
        ({"tasks.cleaning.saes": ["absent"]}, "'absent' is no SAE of 'lm'"),
        (
            {"tasks.vectors.kinds": ["function"]},
            "tasks.vectors.kinds: lacks mean, which is what is cleaned",
        ),
        ({"tasks.cleaning.penalties": [3.0, 1.0]}, "penalties: must rise; sort them"),
        ({"tasks.lists.pairs": {}}, "tasks.lists.shipped: is empty, and no other list is named"),
    ],
)
def test_a_section_that_the_study_denies_is_a_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SaeflowError) as error:
        check_any_study(changed(STUDY, changes))
    assert sentence in str(error.value)


def test_lists_are_read_before_any_job(tmp_path: Path) -> None:
    short = tmp_path / "short.csv"
    short.write_text("input,output\n" + "".join(f"a{i},b{i}\n" for i in range(6)))
    study = check_any_study(changed(STUDY, {"tasks.lists.files": {"short": str(short)}}))
    with pytest.raises(SaeflowError, match="task 'short' has 6 pairs"):
        workflow_of(study, ROOT, str)


def test_every_task_is_cleaned_in_every_sae_that_can_be_and_without_any_none_is_asked_for() -> None:
    flow = workflow_of(check_any_study(changed(STUDY, {"tasks.cleaning.saes": None})), ROOT, str)
    saes = flow.names["cleaned_sae"]
    assert {"topk", "standard", "jumprelu", "gated"} <= set(saes)
    assert not {"transcoder", "elsewhere", "layers", "models"} & set(saes)
    files = flow.files(*flow.outputs("tasks"))
    assert sum("curves" in str(path) for path in files) == 2 * len(saes)
    alone = workflow_of(check_any_study(changed(STUDY, {"tasks.cleaning": None})), ROOT, str)
    assert not [path for path in alone.files(*alone.outputs("tasks")) if "curves" in str(path)]
    assert "tasks_numbers" not in alone.figures
    assert "tasks_layers" in alone.figures
