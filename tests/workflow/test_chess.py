"""The study of chess, as small as it can be: every stage runs, and its files are as designed."""

import json
import shutil

import polars as pl
import pytest
from snakemake_runs import Workflow, planned_jobs
from studies import study_config

from saeflow.chess.analyses.blunders.blunders import BLUNDERS
from saeflow.chess.analyses.fine_tune.lessons import FINE_TUNING
from saeflow.chess.games.positions import SCHEMA

TINY = study_config("tiny-chess")
ANALYSES = ["examples", "concepts", "skill", "interventions", "transitions"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Workflow(tmp_path_factory.mktemp("chess"), TINY, base=None)
    study.jobs = study.run()
    return study


def test_every_stage_runs_and_its_files_are_as_designed(study):
    for path in [
        "config.yaml",
        "provenance.json",
        "models/maia2-mini/model.safetensors",
        "models/maia2-mini.accuracy.parquet",
        "activations/maia2-mini/blocks.1.resid_post/manifest.json",
        "saes/resid/sae_weights.safetensors",
        "examples/resid/squares.parquet",
        "concepts/resid/associations.parquet",
        "concepts/resid/directions.safetensors",
        "skill/resid/skill.parquet",
        "interventions/resid/interventions.parquet",
        "interventions/resid/shifts.parquet",
        "concepts/resid/boards.parquet",
        "transitions/transitions.parquet",
        "figures/chess_accuracy.svg",
        "figures/chess_board_auc.png",
        "report/index.html",
        "report/concepts-resid.html",
        "report/latents.html",
        "report/data/latents-resid/00000.js",
        "report/boards/resid/000.svg",
    ]:
        assert (study.results / path).is_file(), path
    assert study.jobs["cache_board_activations"] == 2
    positions = pl.read_parquet(study.results / "games/positions.parquet")
    assert dict(positions.schema) == SCHEMA
    assert positions["game"].n_unique() == 120


def test_the_report_tells_what_the_tables_hold(study):
    table = pl.read_parquet(study.results / "concepts/resid/associations.parquet")
    concepts = table["concept"].n_unique()
    assert (
        f"Of {concepts} concepts, the latents of resid tell"
        in (study.results / "report/index.html").read_text()
    )
    boards = pl.read_parquet(study.results / "concepts/resid/boards.parquet")
    assert boards.height == len(list((study.results / "report/boards/resid").iterdir())) > 0
    assert set(boards["family"]) <= {"piece", "offensive_threat"}


def test_the_sae_is_measured_by_what_it_does_to_moves(study):
    metrics = json.loads((study.results / "saes/resid/metrics.json").read_text())
    assert metrics["kl"] > 0
    assert 0 < metrics["agreement"] <= 1
    assert metrics["positions"] > 100


def test_nothing_changed_nothing_runs(study):
    assert study.run() == {}


ENGINE = {"positions": 300, "positions_per_job": 100}


@pytest.mark.parametrize(
    ("sections", "more"),
    [
        ({}, {}),
        (
            {"engine": ENGINE},
            {"evaluate_positions": 3, "gather_evaluations": 1},
        ),
        (
            {"engine": ENGINE, "blunders": {}},
            {"evaluate_positions": 3, "gather_evaluations": 1, "find_blunders": 1},
        ),
        (
            {"engine": ENGINE, "blunders": {}, "fine_tune": {}},
            {
                "evaluate_positions": 3,
                "gather_evaluations": 1,
                "find_blunders": 1,
                "tune_player": 1,
                "measure_tuning": 1,
            },
        ),
        (
            {"engine": ENGINE, "transitions": {"positions": 50, "correct": "best"}},
            {"evaluate_positions": 3, "gather_evaluations": 1},
        ),
    ],
)
def test_an_engine_is_asked_only_where_the_study_says_so(tmp_path, sections, more):
    wanted = [
        "evaluate_positions",
        "gather_evaluations",
        "find_blunders",
        "tune_player",
        "measure_tuning",
    ]
    done = Workflow(tmp_path, TINY, base=None).attempt(config=sections, args=("-n", "-p"))
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = planned_jobs(done)
    assert {rule: jobs[rule] for rule in wanted if rule in jobs} == more
    assert jobs["find_transitions"] == 1
    best = sections.get("transitions", {}).get("correct") == "best"
    asked = " --split eval --engine results/tiny-chess/engine/evaluations.parquet --settings "
    assert (asked in done.stdout) is best


def test_a_missing_engine_is_told_in_one_sentence_that_names_the_remedy(tmp_path, study):
    shutil.copytree(study.directory, tmp_path, dirs_exist_ok=True, symlinks=True)
    asking = Workflow(tmp_path, TINY, base=None)
    done = asking.attempt(config={"engine": {"command": "no-such-engine", "positions": 5}})
    assert done.returncode != 0
    log = (asking.results / "logs/evaluate_positions/0.log").read_text()
    assert (
        "the engine 'no-such-engine' is not installed; install one (Debian: apt install stockfish)"
        in log
    )
    assert "Traceback" not in log
    assert not (asking.results / "engine/evaluations.parquet").exists()


@pytest.mark.slow
def test_with_stockfish_blunders_are_found_and_the_player_is_tuned_on_them(tmp_path, study):
    if not (shutil.which("stockfish") or shutil.which("stockfish", path="/usr/games")):
        pytest.skip("Stockfish is not installed")
    shutil.copytree(study.directory, tmp_path, dirs_exist_ok=True, symlinks=True)
    tuned = Workflow(tmp_path, TINY, base=None)
    engine = {"depth": None, "nodes": 500, "positions": 120, "positions_per_job": 60}
    best = {"positions": 50, "correct": "best"}
    jobs = tuned.run(
        config={
            "engine": engine,
            "blunders": {},
            "fine_tune": {"epochs": 2},
            "transitions": best,
        }
    )
    assert jobs["evaluate_positions"] == 2
    assert "train_saes" not in jobs
    said = pl.read_parquet(tuned.results / "engine/evaluations.parquet").unique(
        "fen", keep="first", maintain_order=True
    )
    solved = pl.read_parquet(tuned.results / "transitions/transitions.parquet").join(
        said, on="fen", how="left"
    )
    assert solved.height == 50
    assert solved["right"].equals(solved["best"])
    blunders = pl.read_parquet(tuned.results / "blunders/blunders.parquet")
    assert dict(blunders.schema) == BLUNDERS
    assert blunders["loss"].min() >= 1.5
    accuracy = pl.read_parquet(tuned.results / "fine_tune/accuracy.parquet")
    assert dict(accuracy.schema) == FINE_TUNING
    assert set(accuracy["set"]) == {"blunders", "ordinary"}
    assert (tuned.results / "models/maia2-mini-tuned/model.safetensors").is_file()
    assert jobs["write_report"] == 1
    assert (
        "The model after learning from blunders"
        in (tuned.results / "report/index.html").read_text()
    )


def test_a_study_without_analyses_is_its_core(tmp_path):
    core = {key: value for key, value in TINY.items() if key not in ANALYSES}
    done = Workflow(tmp_path, core, base=None).attempt(args=("-n",))
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = planned_jobs(done)
    assert jobs["measure_player"] == jobs["evaluate_board_sae"] == jobs["write_report"] == 1
    assert not jobs.keys() & {"label_concepts", "measure_skill", "intervene", "find_transitions"}
