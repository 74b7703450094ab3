"""Every command that leases a device computes on it, and finds there what it finds on the CPU."""

from __future__ import annotations

import inspect
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import polars as pl
import pytest
import typer.main
from checkout import ROOT
from jobs import Job, jobs_of
from pretended_cuda import PretendedCuda, Product, pretended_cuda
from safetensors.numpy import load_file
from studies import changed, study_config

from saeflow import devices
from saeflow.cli.main import app

# Every job of a study twice, operation by operation: twenty minutes where other work runs beside it.
pytestmark = pytest.mark.timeout(3600)

# Draws of texts and steps of trainings part where two sums differ in the last bit.
ALIKE = 0.95
# Ends of intervals, which of two blocks lie eleven times as far from the mean as the blocks do.
ENDS = ("_low", "_high")
LANGUAGE, CHESS = study_config("on-a-gpu"), study_config("chess-on-a-gpu")
TARGETS = {
    "on-a-gpu": [
        "models/lm.metrics.json",
        *(f"saes/{name}/metrics.json" for name in LANGUAGE["saes"]),
        "examples/topk/latents.parquet",
        "logit_lens/topk/causal.parquet",
        "steering/food/sae_ts/scores.parquet",
        "steering/food/divergence.parquet",
        "steering/food/side_effects.parquet",
        "steering/food/capability.parquet",
        "steering/food/search/divergence.parquet",
        "steering/food/few_shot/completions.parquet",
        "models/tuned.tuning.parquet",
        "decomposition/topk/curves.parquet",
        "decomposition/elsewhere/lm/cooking/edits.parquet",
        "probing/wedding/results.parquet",
        "directions/lm/cooking/edits.parquet",
        "directions/lm/transfer.parquet",
        "geometry/causes.parquet",
        "tasks/sweep.parquet",
        "tasks/topk/latents.parquet",
        "geometry/latents.parquet",
        "labels/topk/labels.parquet",
        "labels/models/labels.parquet",
        "dreaming/topk/targets.parquet",
        "dreaming/without-sae/targets.parquet",
        "diffing/models/other/divergence.parquet",
        "diffing/saes/models/causal.parquet",
        "diffing/saes/models/contexts.parquet",
        "diffing/matching/alone/classes.parquet",
    ],
    "chess-on-a-gpu": [
        "models/maia2-mini.accuracy.parquet",
        "saes/resid/metrics.json",
        "examples/resid/latents.parquet",
        "skill/resid/skill.parquet",
        "interventions/resid/interventions.parquet",
        "fine_tune/accuracy.parquet",
    ],
}
# An engine that would always play the last move, and finds the player who is to move ahead.
ENGINE = f"""#!{sys.executable}
import chess
for line in map(str.split, open(0)):
    match line:
        case ["uci"]:
            print("id name last\\nuciok", flush=True)
        case ["isready"]:
            print("readyok", flush=True)
        case ["position", "fen", *words]:
            fen, _, moves = " ".join(words).partition(" moves ")
            board = chess.Board(fen)
            for move in moves.split():
                board.push_uci(move)
        case ["position", "startpos", *words]:
            board = chess.Board()
            for move in words[1:]:
                board.push_uci(move)
        case ["go", *_]:
            best = max(board.legal_moves, key=lambda move: move.uci())
            print(f"info depth 1 score cp 200 pv {{best}}\\nbestmove {{best}}", flush=True)
        case ["quit"]:
            break
"""
PLAYER = Job(
    "train_player",
    ["trained", "trained.checksums.json"],
    [
        *("chess", "train", "--positions", "results/chess-on-a-gpu/games/positions.parquet"),
        *("--shape", '{"dim_cnn": 8, "blocks_cnn": 1, "dim_vit": 16, "dim_value": 8, "heads": 2}'),
        *("--settings", '{"batch_size": 256, "positions": 1024}', "--seed", "0"),
        *("--checkpoint", "trained.pt", "--output", "trained"),
        *("--checksums", "trained.checksums.json"),
    ],
    on_gpu=True,
)
PREDICTED = Job(
    "predict",
    ["predicted.parquet"],
    [
        *("chess", "predict", "--fen", "start", "--rating", "1500"),
        *("--output", "predicted.parquet"),
    ],
    on_gpu=True,
)

FOOD = "results/on-a-gpu/steering/food"
WORDS = Job(
    "complete_in_words",
    ["told/few_shot/completions.parquet"],
    [
        *("steering", "complete-in-words"),
        *("--goal", str(ROOT / "workflow/goals/stories/food.yaml")),
        *("--model", "results/on-a-gpu/models/lm", "--hook", LANGUAGE["hook"]),
        *("--settings", '{"prompts": ["The"], "samples": 16, "new_tokens": 6}', "--seed", "0"),
        *("--prompting", '{"methods": ["few_shot"], "examples": 1}', "--output", "told"),
    ],
    on_gpu=True,
)
WORDS_MOVE = Job(
    "measure_divergence",
    ["told/divergence.parquet"],
    [
        *("steering", "divergence", f"{FOOD}/sae_ts/completions.parquet"),
        *("--vector", f"{FOOD}/sae_ts/vector.safetensors"),
        *("--in-words", "told/few_shot/completions.parquet"),
        *("--prompts", "told/few_shot/prompts.parquet"),
        *("--model", "results/on-a-gpu/models/lm", "--output", "told/divergence.parquet"),
    ],
    on_gpu=True,
)


class Ran(NamedTuple):
    """What became of a job on the GPU."""

    job: Job
    error: str | None
    of_cpu: list[Product]
    of_gpu: int
    differences: list[str]


@contextmanager
def fresh_process() -> Iterator[None]:
    """As a process of its own begins: it has asked for no device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(devices._GRANTED, "")
        patch.delenv(devices._GRANTED)
        yield


def run_on_both(job: Job) -> Ran:
    """Run a job on the pretended GPU, then on the CPU, and compare; the CPU's results stay."""
    error, mode = None, PretendedCuda()
    with fresh_process():
        try:
            with pretended_cuda() as mode:
                job.run()
        except BaseException:
            error = traceback.format_exc()
    elsewhere = Path("on-gpu")
    made = [Path(output) for output in job.outputs if Path(output).exists()]
    for output in made:
        (elsewhere / output).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(output, elsewhere / output)
    for kept in Path("results").glob("*/checkpoints"):  # finished parts, which a job takes up
        shutil.rmtree(kept)
    with fresh_process():
        job.run()
    differences = [
        difference
        for output in made
        for file in sorted(output.rglob("*") if output.is_dir() else [output])
        if file.is_file()
        for difference in differences_of(elsewhere / file, file)
    ]
    return Ran(job, error, mode.of_cpu, mode.of_gpu, differences)


def differences_of(gpu: Path, cpu: Path) -> list[str]:
    """Columns or tensors of two files that are not alike."""
    columns = columns_of(gpu), columns_of(cpu)
    assert set(columns[0]) == set(columns[1]), cpu
    return [
        f"{cpu.name}: {name}"
        for name, values in columns[1].items()
        if not alike(columns[0][name], values, 5e-2 if name.endswith(ENDS) else 2e-2)
    ]


def columns_of(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The numbers and texts of a file by name; nothing of files that hold neither."""
    if file.suffix == ".parquet":
        table = pl.read_parquet(file)
        return {
            name: table[name].to_numpy()
            for name in table.columns
            if not table[name].dtype.is_nested() and table[name].dtype != pl.Binary
        }
    if file.suffix == ".safetensors":
        return {
            name: values for name, values in load_file(file).items() if values.dtype.kind in "fiub"
        }
    if file.suffix == ".h5":
        with h5py.File(file) as opened:
            return {
                name: values[:]
                for name, values in opened.items()
                if isinstance(values, h5py.Dataset) and values.dtype.kind in "fiu"
            }
    return {}


def alike(gpu: np.ndarray[Any, Any], cpu: np.ndarray[Any, Any], near: float) -> bool:
    """Whether nearly all numbers are as near as that share of their usual size, and nearly all
    texts the same. Models of four steps are 5e-5 nats apart, and shares of that differ by 1 %."""
    if gpu.shape != cpu.shape:
        return False
    if not cpu.size:
        return True
    if cpu.dtype.kind not in "fiu":
        return float(np.mean(gpu == cpu)) >= ALIKE
    finite = np.isfinite(cpu)
    size = float(np.abs(cpu[finite].astype(float)).mean()) if finite.any() else 0.0
    close = np.isclose(gpu.astype(float), cpu.astype(float), near, near * size, equal_nan=True)
    return float(close.mean()) >= ALIKE


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(LANGUAGE, marks=pytest.mark.slow, id="language"),
        pytest.param(CHESS, marks=pytest.mark.slow, id="chess"),
    ],
)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Ran]:
    """Every job of a study that a GPU is asked for, run on both."""
    directory, study, results = tmp_path_factory.mktemp("on-a-gpu"), request.param, []
    further = [WORDS, WORDS_MOVE]
    if "engine" in study:
        program = directory / "engine"
        program.write_text(ENGINE)
        program.chmod(0o755)
        study, further = changed(study, {"engine.command": str(program)}), [PLAYER, PREDICTED]
    targets = [f"results/{study['study']}/{target}" for target in TARGETS[study["study"]]]
    jobs = jobs_of(study, directory, targets)
    (directory / "workflow").symlink_to(ROOT / "workflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for job in [*jobs, *further]:
            if job.on_gpu:
                results.append(run_on_both(job))
            else:
                job.run()
    return results


def test_no_command_on_a_gpu_mixes_devices_or_takes_an_array_of_the_gpu(ran: list[Ran]) -> None:
    assert not [f"{each.job.rule}: {each.error}" for each in ran if each.error]


def test_every_product_of_a_command_with_a_gpu_is_of_the_gpu(ran: list[Ran]) -> None:
    assert not [(each.job.rule, each.of_cpu[:3]) for each in ran if each.of_cpu]
    assert not [each.job.rule for each in ran if not each.of_gpu and not each.error]


def test_tables_and_tensors_of_a_gpu_are_those_of_the_cpu(ran: list[Ran]) -> None:
    assert not [(each.job.rule, each.differences) for each in ran if each.differences]


def test_every_command_that_leases_a_device_is_among_these(ran: list[Ran]) -> None:
    leasing = set()
    for name, group in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, command in getattr(group, "commands", {}).items():
            if "use_device" in inspect.getsource(inspect.unwrap(command.callback)):
                leasing.add(f"{name} {inner}")
    here = {each.job.command for each in ran}
    chess = any(command.startswith("chess ") for command in here)
    assert here >= {command for command in leasing if command.startswith("chess ") == chess}
