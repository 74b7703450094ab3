"""Jobs on a real SLURM, through the profile that is shipped."""

import tempfile
from pathlib import Path

import pytest
from checkout import ROOT
from cluster import Cluster, lacking

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(lacking(False)), reason=str(lacking(False))),
]
needs_accounting = pytest.mark.skipif(bool(lacking(True)), reason=str(lacking(True)))
PROFILE = (
    *(
        "--profile",
        ROOT / "profiles/slurm",
        "--slurm-partition-config",
        ROOT / "profiles/slurm/partitions.yaml",
    ),
    *("--slurm-init-seconds-before-status-checks", "8", "--latency-wait", "5"),
)


@pytest.fixture
def place():
    """A folder for a cluster; a socket's path may have 107 letters, and those of tests are long."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@needs_accounting
@pytest.mark.timeout(300)
@pytest.mark.parametrize("status", ["squeue", "sacct"])
def test_with_accounting_either_way_of_asking_works(status, workflow, place):
    wanted = "results/tiny/corpus/eval.safetensors"
    with Cluster(place, accounting=True) as cluster:
        env = {"SLURM_CONF": cluster.environment["SLURM_CONF"]}
        args = (
            *PROFILE,
            "--slurm-status-command",
            status,
            "--default-resources",
            "slurm_account=test",
            "mem_mb=700",
        )
        assert workflow.run(wanted, args=args, env=env) == {"write_corpus": 1}
        states = cluster.ask("sacct", "-n", "-X", "-o", "State,Partition").split()
    assert states == ["COMPLETED", "cpu"]
