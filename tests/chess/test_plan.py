"""What a study of chess would run, told before there is a game."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from chess_positions import random_play
from studies import study_config
from typer.testing import CliRunner

from saeflow.chess.plan import plan, row_width
from saeflow.chess.player.io import embedded_maia2, load_maia2
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.settings import ChessModel
from saeflow.chess.saes.site import Activations, MaiaAtSite
from saeflow.chess.study import ChessStudy
from saeflow.cli.main import app
from saeflow.kinds import check_any_study
from saeflow.planning.work import StagePlan

SMALL = ChessModel(
    dim_cnn=8, blocks_cnn=1, dim_vit=16, blocks_vit=2, heads=2, dim_head=6, dim_elo=4
)


def study(**changes: Any) -> ChessStudy:
    checked = check_any_study(study_config("tiny-chess", changes))
    assert isinstance(checked, ChessStudy)
    return checked


def stages(**changes: Any) -> dict[str, StagePlan]:
    return {stage.stage: stage for stage in plan(study(**changes), Path()).stages}


@pytest.mark.parametrize("site", ["attn", "attn_out", "mlp", "resid_post"])
@pytest.mark.parametrize("shape", [SMALL, None], ids=["other", "embedded"])
def test_rows_are_as_wide_as_the_model_makes_them(site: str, shape: ChessModel | None) -> None:
    torch.manual_seed(0)
    maia = Maia2(shape).eval() if shape else load_maia2(embedded_maia2())
    at, widths = MaiaAtSite(maia, f"blocks.1.{site}"), []

    def keep(x: Activations) -> Activations:
        widths.append(x.shape[-1])
        return x

    ratings = torch.zeros(3, dtype=torch.long)
    with torch.no_grad():
        at.judge(at.embed(random_play(3, seed=1).boards.part(slice(0, 3))), ratings, keep)
    assert widths == [row_width(maia.shape, f"blocks.1.{site}")]


def test_bytes_of_the_cache_are_those_of_its_rows() -> None:
    means = stages()["activations"]
    assert (means.jobs, means.tokens) == (2 + 1, 1024)
    assert means.disk == 1024 * 96 * 4
    every = stages(**{"activations.tokens": "all", "activations.dtype": "float16"})["activations"]
    assert every.disk == 1024 * 8 * 96 * 2
    imported = stages(**{"saes.resid": {"path": "nowhere"}})
    assert imported["activations"][1:5] == (0, 0, 0, 0)
    assert imported["saes"].tokens == 11 * 60  # it is measured, and not trained


def test_steps_and_activations_of_trainings_are_counted() -> None:
    saes = stages(**{"saes.resid.train.accumulate": 3})["saes"]
    assert saes.work == "resid: jumprelu, 6 steps"  # 8,192 activations, 1,536 a step
    assert saes.tokens == 8192 + 11 * 60
    assert saes.jobs == 2


def test_positions_of_analyses_follow_from_their_settings() -> None:
    planned = stages(**{"saes.other": {"train": {"d_sae": 64}}, "engine": {"positions": 510}})
    assert planned["skill"].tokens == 2 * 2 * 60
    assert planned["interventions"].tokens == 2 * 2 * 3 * 30
    # one of latents, three strengths along probes
    assert "4 edits of each position at 1 rating" in planned["interventions"].work
    alone = stages(**{"interventions.directions": []})["interventions"].work
    assert "1 edit of each position at 1 rating" in alone
    assert planned["transitions"].tokens == 50
    assert planned["engine"].jobs == 3 + 1
    assert "blunders" not in planned


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    asked = study(engine={"command": sys.executable}, positions={"path": "games.pgn"})
    present = {need.key: need.present for need in plan(asked, tmp_path).needs}
    assert present == {"positions.path": False, "engine.command": True}
    (tmp_path / "games.pgn").touch()
    asked = study(
        engine={"command": "no-such-engine"},
        positions={"path": "games.pgn"},
        model={"official": "rapid"},
    )
    present = {need.key: need.present for need in plan(asked, tmp_path).needs}
    assert present == {"positions.path": True, "model": None, "engine.command": False}
    told = [need.said() for need in plan(asked, tmp_path).needs if need.present is False]
    assert told == [
        "engine.command: no-such-engine is not there; install it, or name another program or its path"
    ]


def test_every_file_of_games_is_told_and_looked_for(tmp_path: Path) -> None:
    (tmp_path / "b.pgn").touch()
    asked = study(positions={"path": ["a.pgn", "b.pgn"], "test": ["c.pgn"]})
    planned = plan(asked, tmp_path)
    assert planned.stages[0].work == "games of a.pgn, b.pgn; the split eval is c.pgn"
    assert [(need.where, need.present) for need in planned.needs] == [
        ("a.pgn", False),
        ("b.pgn", True),
        ("c.pgn", False),
    ]


def test_the_command_tells_positions_and_no_time(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study_config("tiny-chess")))
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "study.yaml")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    header, games, model = done.output.splitlines()[2:5]
    assert header.split()[:3] == ["stage", "jobs", "positions"]
    assert games.split()[:6] == ["games", "1", "–", "–", "–", "–"]
    assert model.split()[:3] == ["model", "2", "660"]
    assert "everything it reads is there" in done.output
