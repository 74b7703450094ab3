"""One SAE's latents on two processes give the SAE that one process gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkout import SUPPORT
from work_of_processes import broken, note

from saeflow.errors import SaeflowError
from saeflow.saes.parallel import ALONE, TensorParallel, spread

PROGRAM = """
import sys
from pathlib import Path
import torch
from torch import distributed
from rows_in_memory import InMemory, codes, statistics_of
from saeflow.config.sections import SAETraining
from saeflow.saes.feeds import sae_feed
from saeflow.saes.parallel import TensorParallel
from saeflow.saes.training import train_saes

rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
if world > 1:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank,
    world_size=world)
generator = torch.Generator().manual_seed(0)
x = codes(4000, 30, generator) @ torch.randn(30, 16, generator=generator)
common = dict(d_sae=80, k=3, batch_size=256, tokens=256 * 60, learning_rate=3e-3, dead_after=256)
own = {
    "standard": {"sparsity_coefficient": 0.3}, "gated": {"sparsity_coefficient": 0.3}, "topk": {},
    "batchtopk": {},
    "jumprelu": {"target_l0": 3.0, "bandwidth": 0.5}, "matryoshka": {"prefixes": [0.2, 0.6]},
}
settings = [SAETraining(architecture=name, **common, **more) for name, more in own.items()]
feed = sae_feed(InMemory(x, batch_size=256), statistics_of(x), {})
found = train_saes(feed, settings, 0, folder / "state.pt", checkpoint_seconds=0, parallel=TensorParallel(rank,
world))
if rank == 0:
    torch.save([[vars(sae), curve["l0"].to_list(), curve["dead"].to_list()] for sae, curve in
    found], folder / "out.pt")
if world > 1:
    distributed.destroy_process_group()  # or its threads, at times, end the process with an abort
"""


def run(folder: Path, world: int) -> list[list[object]]:
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM]
    jobs = [
        subprocess.Popen([*command, str(rank), str(world), str(folder)], cwd=SUPPORT)
        for rank in range(world)
    ]
    assert [job.wait(timeout=120) for job in jobs] == [0] * world
    return torch.load(folder / "out.pt", weights_only=False)


def test_two_processes_train_what_one_trains(tmp_path):
    single, two = run(tmp_path / "one", 1), run(tmp_path / "two", 2)
    assert len(single) == len(two) == 6
    for (alone, active, dead), (shared, active_too, dead_too) in zip(single, two, strict=True):
        name = alone["metadata"]["training_architecture"]
        for key, value in alone.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(
                    shared[key], value, rtol=1e-5, atol=1e-5, msg=f"{name}: {key}"
                )
        assert active == pytest.approx(active_too, abs=1e-2)
        assert dead == dead_too
    assert any(max(dead) for _, _, dead in single), "no latent died, so none was revived"


def test_latents_that_cannot_be_shared_equally_are_reported():
    with pytest.raises(SaeflowError, match="40 latents cannot be shared by 3 processes"):
        TensorParallel(0, 3).latents(40)
    assert ALONE.latents(40) == slice(0, 40)


def test_work_is_spread_over_processes_and_its_complaint_comes_back(tmp_path):
    seen: list[TensorParallel] = []
    spread(1, seen.append)
    assert seen == [ALONE]
    spread(2, note, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0 of 2, total 3",
        "1 of 2, total 3",
    ]
    with pytest.raises(SaeflowError, match=r"^sae: broken$"):
        spread(2, broken)
