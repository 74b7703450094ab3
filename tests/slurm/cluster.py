"""A SLURM of one machine, private to a test: all of it in one folder, pretended GPUs, with or without accounting.

    python tests/slurm/cluster.py start FOLDER [--accounting]
    export SLURM_CONF=FOLDER/etc/slurm.conf
    python tests/slurm/cluster.py stop FOLDER

Needs root and Debian's packages slurm-wlm and munge, with accounting also slurmdbd and mariadb-server. The one thing
outside the folder is the link /etc/slurm/slurm.conf: the job-step plugin of Snakemake drops SLURM_CONF from the
environment of jobs. A configuration of somebody else there is left alone.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LINK = Path("/etc/slurm/slurm.conf")
CPUS, GPUS, MEGABYTES = 8, 2, 256_000
FIRST_PORT = 26_917
DAEMONS = [
    "slurmd",
    "slurmctld",
    "slurmdbd",
    "mariadbd",
    "munged",
]  # in the order they are stopped in
DATABASE = "slurm_acct_db"

SLURM_CONF = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# The last is how long a requeued job waits.
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={slurmd_port}
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
StateSaveLocation={folder}/spool/slurmctld
SlurmdSpoolDir={folder}/spool/slurmd
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# No cgroups: containers and small virtual machines have none to give.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# The machine may have fewer cores than are declared here.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
GresTypes=gpu
DefMemPerCPU=500
# Finished jobs stay in squeue as long as on clusters that Snakemake can ask by it.
MinJobAge=300
ReturnToService=2
KillWait=2
{accounting}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:pretended:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""

ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_port}
AccountingStoragePass={folder}/run/munge.socket
AccountingStorageTRES=gres/gpu
"""

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={database_port}
SlurmUser=root
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""


def lacking(accounting: bool) -> str | None:
    """What keeps this machine from running a private SLURM, in words; None where nothing does."""
    if os.geteuid() != 0:
        return "a private SLURM needs root"
    wanted = ["munged", "slurmctld", "slurmd"] + (["slurmdbd", "mariadbd"] if accounting else [])
    missing = [name for name in wanted if not shutil.which(name)]
    if missing:
        packages = "slurm-wlm munge" + (" slurmdbd mariadb-server" if accounting else "")
        return f"{', '.join(missing)} not found; apt-get install --no-install-recommends {packages}"
    if LINK.exists() and not LINK.is_symlink():
        return f"this machine has a SLURM already ({LINK})"
    return None


class Cluster:
    """The daemons and files of one private SLURM.

    Args:
        folder: where everything lies; no folder above it may be open to others without the sticky bit.
        accounting: whether slurmdbd and a database run, too.
    """

    def __init__(self, folder: Path, accounting: bool = False) -> None:
        self.folder, self.accounting = Path(folder).resolve(), accounting
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "etc/slurm.conf")}

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all daemons and come back when the node is idle."""
        for name in ("etc", "run", "log", "spool/slurmctld", "spool/slurmd", "gpu", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._configure()
        self._start_munge()
        if self.accounting:
            self._start_database()
        self._run("slurmctld", "-i")
        self._wait("slurmctld", lambda: self._succeeds("scontrol", "ping"))
        self._run("slurmd")
        self._wait("an idle node", lambda: self.ask("sinfo", "-h", "-o", "%T") == "idle")

    def stop(self) -> None:
        """Cancel all jobs and stop what was started, by the ids that the daemons wrote down, and nothing else."""
        if self._alive("slurmctld"):
            self._succeeds("scancel", "--user=root")
            self._wait("jobs to end", lambda: not self.ask("squeue", "-h"), seconds=20)
        for name in DAEMONS:
            if (pid := self._alive(name)) is None:
                continue
            os.kill(pid, signal.SIGTERM)
            self._wait(f"{name} to stop", lambda name=name: self._alive(name) is None)  # type: ignore[misc]
        if LINK.is_symlink() and LINK.readlink() == self.folder / "etc/slurm.conf":
            LINK.unlink()

    def ask(self, *command: str) -> str:
        """What a command of SLURM says."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=60
        )
        return done.stdout.strip()

    def _configure(self) -> None:
        values = {
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "port": FIRST_PORT,
            "slurmd_port": FIRST_PORT + 1,
            "database_port": FIRST_PORT + 2,
            "mariadb_port": FIRST_PORT + 3,
            "cpus": CPUS,
            "gpus": GPUS,
            "memory": MEGABYTES,
        }
        etc = self.folder / "etc"
        accounting = (
            ACCOUNTING if self.accounting else "AccountingStorageType=accounting_storage/none"
        )
        values["accounting"] = accounting.format(**values)
        (etc / "slurm.conf").write_text(SLURM_CONF.format(**values))
        (etc / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))
        (etc / "slurmdbd.conf").chmod(0o600)
        (etc / "gres.conf").write_text(f"AutoDetect=off\n{self._devices(values['host'])}\n")
        if LINK.is_symlink() and not LINK.exists():  # left by a test that was killed
            LINK.unlink()
        LINK.parent.mkdir(exist_ok=True)
        if not LINK.is_symlink():
            LINK.symlink_to(etc / "slurm.conf")
        elif LINK.readlink() != etc / "slurm.conf":
            raise RuntimeError(f"{LINK} belongs to another SLURM")

    def _devices(self, host: object) -> str:
        """Lines of gres.conf: slurmd takes device files only, so clones of /dev/null, or other harmless ones."""
        files = [self.folder / "gpu" / f"gpu{number}" for number in range(GPUS)]
        try:
            for file in files:
                if not file.exists():
                    os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            files = [Path("/dev", name) for name in ("null", "zero", "full", "random")][:GPUS]
        return "\n".join(f"NodeName={host} Name=gpu Type=pretended File={file}" for file in files)

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        munge.chmod(0o700)
        (munge / "key").write_bytes(secrets.token_bytes(128))
        (munge / "key").chmod(0o400)
        names = {"socket": "munge.socket", "pid-file": "munged.pid"}
        options = [f"--{option}={self.folder / 'run' / name}" for option, name in names.items()]
        options += [f"--key-file={munge / 'key'}", f"--seed-file={munge / 'seed'}"]
        self._run("munged", *options, f"--log-file={self.folder / 'log/munged.log'}")
        self._wait(
            "munged",
            lambda: self._succeeds("munge", "-S", str(self.folder / "run/munge.socket"), "-n"),
        )

    def _start_database(self) -> None:
        data, run, log = (
            self.folder / "database",
            self.folder / "run",
            self.folder / "log/mariadbd.log",
        )
        options = [
            "--bind-address=127.0.0.1",
            f"--port={FIRST_PORT + 3}",
            f"--socket={data}/socket",
        ]
        options += ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
        data.mkdir()
        shutil.chown(data, "mysql", "mysql")
        installed = [
            "--no-defaults",
            "--user=mysql",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ]
        self._run("mariadb-install-db", *installed, "--skip-test-db")
        with open(log, "ab") as file:
            process = subprocess.Popen(
                ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", *options],
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        (run / "mariadbd.pid").write_text(str(process.pid))
        client = ["mariadb", "--no-defaults", "-uroot", f"--socket={data}/socket", "-e"]
        self._wait("mariadbd", lambda: self._succeeds(*client, "select 1"))
        user = "'slurm'@'%'"
        self._run(*client, f"create database {DATABASE}; create user {user} identified by 'slurm'")
        self._run(*client, f"grant all on {DATABASE}.* to {user}")
        self._run("slurmdbd")
        self._wait("slurmdbd", lambda: self._succeeds("sacctmgr", "-n", "show", "cluster"))
        for what in (["cluster", "private"], ["account", "test"], ["user", "root", "Account=test"]):
            self._run("sacctmgr", "-i", "add", *what)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=120
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    def _succeeds(self, *command: str) -> bool:
        return (
            subprocess.run(
                command, capture_output=True, env=self.environment, timeout=60
            ).returncode
            == 0
        )

    def _alive(self, daemon: str) -> int | None:
        """The id of a daemon that runs; a zombie, which its parent has not asked about yet, does not."""
        try:
            pid = int((self.folder / "run" / f"{daemon}.pid").read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return None if state == "Z" else pid

    def _wait(self, what: str, done: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(
                    f"waited {seconds:.0f} s for {what}; logs are in {self.folder / 'log'}"
                )
            time.sleep(0.1)


def main() -> None:
    """Start or stop a cluster by hand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["start", "stop"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accounting", action="store_true")
    arguments = parser.parse_args()
    if reason := lacking(arguments.accounting):
        sys.exit(reason)
    cluster = Cluster(arguments.folder, arguments.accounting)
    cluster.start() if arguments.what == "start" else cluster.stop()


if __name__ == "__main__":
    main()
