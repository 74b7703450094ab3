"""Mistakes in the files of goals, which are told before any job."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from saeflow.config.sections import Judge
from saeflow.errors import SaeflowError
from saeflow.judging.goals import names_like, read_goal_for

ANIMALS = yaml.safe_load((ROOT / "workflow/goals/stories/animals.yaml").read_text())
LEXICAL = Judge(kind="lexical")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    silent = {key: value for key, value in ANIMALS.items() if key != "words"}
    for name, goal in {"animals": ANIMALS, "magic": ANIMALS, "silent": silent}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(goal))
    return tmp_path


def test_a_goal_without_words_is_refused_for_a_judge_that_counts_them(folder: Path) -> None:
    with pytest.raises(SaeflowError, match=r"silent\.yaml: words: is missing, and the judge"):
        read_goal_for(LEXICAL, folder / "silent.yaml")
    assert read_goal_for(Judge(kind="openai", model="m"), folder / "silent.yaml").words == []
    assert read_goal_for(LEXICAL, folder / "animals.yaml").words == ANIMALS["words"]


def test_a_misspelt_goal_is_answered_with_the_name_like_it(folder: Path) -> None:
    with pytest.raises(SaeflowError, match=r"animal\.yaml: no such file; did you mean 'animals'\?"):
        read_goal_for(LEXICAL, folder / "animal.yaml")
    with pytest.raises(SaeflowError, match=r"sea\.yaml: no such file; correct its name"):
        read_goal_for(LEXICAL, folder / "sea.yaml")
    assert names_like("magics", folder) == ["magic"]
    assert names_like("magic", folder) == []
    assert names_like("magic", folder / "absent") == []
