"""A study of chess is chosen by its kind, closed, and refused with a line that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT
from studies import study_config

from saeflow.analyses.reading import read_study
from saeflow.chess.analyses.fine_tune.settings import FineTuning
from saeflow.chess.study import ChessStudy
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.options import parsed

STUDY = study_config("minimal-chess")
SAE = STUDY["saes"]["main"]


def changed(**changes: Any) -> dict[str, Any]:
    return STUDY | changes


def complaint(values: dict[str, Any]) -> str:
    with pytest.raises(SaeflowError) as caught:
        check_any_study(values)
    return str(caught.value)


def test_the_kind_of_a_study_chooses_its_keys() -> None:
    study = check_any_study(STUDY)
    assert isinstance(study, ChessStudy)
    assert study.model.embedded == "maia2-mini"
    assert study.asked == []
    assert check_any_study(study.model_dump()) == study


@pytest.mark.parametrize("file", ["chess.yaml", "maia2.yaml", "maia2-mini.yaml"])
def test_the_studies_that_come_with_saeflow_are_right(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEFLOW_PGN", "games.pgn")
    values = yaml.safe_load((ROOT / "workflow/studies" / file).read_text(encoding="utf-8"))
    assert isinstance(check_any_study(values), ChessStudy)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (changed(kind="draughts"), "config: kind: must be 'language' or 'chess'; got 'draughts'"),
        (changed(goals={}), "config: goals: is not a known key"),
        (
            changed(positions={}),
            "config: positions: give either path or self_play; this gives none",
        ),
        (
            changed(positions={"path": "a.pgn", "self_play": {}}),
            "config: positions: give either path or self_play; this gives both",
        ),
        (
            changed(positions={"test": ["a.pgn"], "self_play": {}}),
            "config: positions.test: is of played games, and this has none; give path",
        ),
        (
            changed(positions={"path": ["a.pgn", "b.pgn"], "test": ["b.pgn"]}),
            "config: positions.test: 'b.pgn' is among those of path, too; leave it out of one",
        ),
        (
            changed(model={"embedded": "maia2-mini", "official": "rapid"}),
            (
                "config: model: give exactly one of embedded, train, path and official; this gives "
                "embedded and official"
            ),
        ),
        (
            changed(model={"train": {}}),
            "config: positions.self_play: a model that is trained here has no games",
        ),
        (
            changed(saes={"main": SAE | {"hook": "blocks.2.mlp"}}),
            "config: saes.main.hook: 'blocks.2.mlp' does not exist; the model has 2 blocks (0..1)",
        ),
        (
            changed(saes={"main": SAE | {"hook": "blocks.1.hook_resid_post"}}),
            "config: saes.main.hook: must be attn, attn_out, mlp or resid_post of a block",
        ),
        (
            changed(saes={"main": {}}),
            "config: saes.main: give either train or path; this gives none",
        ),
        (
            changed(
                saes={"a": SAE | {"group": "g"}, "b": SAE | {"group": "g", "hook": "blocks.0.mlp"}}
            ),
            "config: saes.b: reads or writes elsewhere than 'a' of the same group",
        ),
        (
            changed(engine={"depth": None}),
            "config: engine: give depth or nodes, or both; a search must end",
        ),
        (changed(engine={"threads": 2}), "config: engine.threads: is not a known key"),
        (changed(blunders={"least": 0.0}), "config: blunders.least: "),
        (
            changed(fine_tune={}),
            "config: fine_tune: learns from blunders, which are not sought; set blunders: {}",
        ),
        (
            changed(concepts={}, skill={"correct": "best"}),
            (
                "config: skill.correct: 'best' is what an engine says of the split eval, and none "
                "is asked"
            ),
        ),
        (
            changed(transitions={"correct": "best"}, engine={"split": "sae"}),
            (
                "config: transitions.correct: 'best' is what an engine says of the split eval, and "
                "none is asked"
            ),
        ),
        (
            changed(skill={}),
            "config: skill: looks at the latents of concepts, which are not sought; set concepts: {}",
        ),
        (
            changed(interventions={}),
            "config: interventions: looks at the latents of concepts, which are not sought",
        ),
        (
            changed(blunders={}),
            "config: blunders: are what an engine says of moves, and none is asked; set engine: {}",
        ),
        (
            changed(engine={}, blunders={}),
            "config: blunders: are sought where a weak player is wrong, too, which is not asked for",
        ),
        (
            changed(interventions={"strengths": [1.0]}),
            "config: interventions.strengths: 1.0 changes nothing",
        ),
    ],
)
def test_a_wrong_study_of_chess_is_refused_with_a_line(values: dict[str, Any], line: str) -> None:
    assert complaint(values).startswith(line)


def test_a_study_asks_an_engine_only_where_it_says_so() -> None:
    assert check_any_study(STUDY).engine is None
    study = check_any_study(
        changed(
            engine={"positions": 501},
            concepts={},
            skill={"correct": "best"},
            transitions={},
            blunders={},
            fine_tune={},
        )
    )
    assert study.engine.jobs == 3
    assert study.fine_tune.value_weight == 0


def test_the_cache_holds_every_hook_once_and_has_enough_shards() -> None:
    saes = {
        "a": SAE,
        "b": SAE | {"hook": "blocks.0.attn"},
        "c": SAE,
        "d": {"hook": "blocks.0.mlp", "path": "folder"},
    }
    study = check_any_study(
        changed(saes=saes, activations={"positions": 5000, "positions_per_shard": 2048})
    )
    assert study.hooks == ["blocks.1.mlp", "blocks.0.attn"]
    assert study.trainings == {"a": ["a"], "b": ["b"], "c": ["c"]}
    assert study.shards == 3


def test_commands_of_language_models_refuse_a_study_of_chess(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    with pytest.raises(
        SaeflowError, match=r"study.yaml: kind: must be 'language', .* alone; got 'chess'$"
    ):
        read_study(tmp_path / "study.yaml")


def test_a_mistake_in_a_section_that_is_built_on_another_is_told_as_any() -> None:
    with pytest.raises(SaeflowError, match=r"^--settings: epoch: is not a known key; did you mean"):
        parsed(FineTuning, '{"epoch": 1}')
