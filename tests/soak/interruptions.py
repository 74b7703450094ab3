"""Kills a study at random moments, again and again, and compares what comes out with an undisturbed
run, bit for bit.

    make soak                                              the default study, twenty kills
    PYTHONPATH=tests/support python tests/soak/interruptions.py --study mine.yaml   another one

The whole process group gets SIGKILL, so that nobody can tidy up. After each kill the study is
started again as a user would: `snakemake --unlock`, then `snakemake`. What has been done is noted
in the work folder: the soak itself may be interrupted, too, and `--rounds` does it in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from told_times import digest

ROOT = Path(__file__).parents[2]

PASSED_OVER = {
    "logs",
    "benchmarks",
    "checkpoints",
}  # times differ, and so do what was said and what was in the works
SHORTEST = 3.0  # seconds before a kill; Snakemake needs two to start


class Soak:
    """A study run twice, in two working directories: once undisturbed, once killed.

    Args:
        work: folder of both, and of ``state.json``.
        study: config file.
        kills: how many.
        seed: of the moments.
        cores: of each run.
    """

    def __init__(self, work: Path, study: Path, kills: int, seed: int, cores: int) -> None:
        self.work, self.study, self.cores = work, study, cores
        work.mkdir(parents=True, exist_ok=True)
        chance = random.Random(seed)
        self.moments = [chance.random() for _ in range(kills)]
        self.state: dict[str, Any] = {"seconds": None, "killed": []}
        if (work / "state.json").exists():
            self.state = json.loads((work / "state.json").read_text())

    def go_on(self, rounds: int) -> bool:
        """Do what comes next, `rounds` times at most; whether all is done."""
        for _ in range(rounds):
            if self.state["seconds"] is None:
                self._undisturbed()
            elif len(self.state["killed"]) < len(self.moments):
                self._kill_once()
            else:
                return self._finish_and_compare()
        return False

    def _undisturbed(self) -> None:
        began = time.monotonic()
        self._run_to_end("undisturbed")
        self._note(seconds=time.monotonic() - began)
        print(f"undisturbed: {self.state['seconds']:.0f} s", flush=True)

    def _kill_once(self) -> None:
        """Start, and kill at a moment such that all kills together are spread over the whole
        study."""
        number = len(self.state["killed"])
        longest = 2 * self.state["seconds"] / len(self.moments)
        moment = SHORTEST + self.moments[number] * longest
        self._unlock()
        # A process group of its own: all of it is killed, and nothing else.
        process = subprocess.Popen(
            self._command("killed"),
            stdout=self._log(),
            stderr=self._log(),
            cwd=ROOT,
            start_new_session=True,
        )
        time.sleep(moment)
        early = process.poll() is not None
        if not early:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        at_work = sorted(
            file.stem for file in (self.work / "killed/.snakemake/incomplete").glob("*")
        )
        self._note(
            killed=[
                *self.state["killed"],
                {"seconds": moment, "in_the_works": len(at_work), "early": early},
            ]
        )
        done = len(list((self.work / "killed/results").rglob("*.jsonl")))
        print(
            (
                f"kill {number + 1}: after {moment:.1f} s, {done} jobs done, {len(at_work)} files "
                "in the works"
            ),
            flush=True,
        )

    def _finish_and_compare(self) -> bool:
        self._unlock()
        self._run_to_end("killed")
        results = self.work / "killed/results"
        expected, after = _digests(self.work / "undisturbed/results"), _digests(results)
        differing = sorted(
            name for name in expected.keys() | after.keys() if expected.get(name) != after.get(name)
        )
        left = [
            str(file) for kind in ("part", "writer", "old") for file in results.rglob(f".*.{kind}")
        ]
        print(
            f"{len(expected)} files compared, {len(differing)} differ: "
            f"{', '.join(differing[:20]) or 'none'}"
        )
        print(f"{len(left)} half-written files are left: {', '.join(left[:5]) or 'none'}")
        if differing or left:
            sys.exit(1)
        return True

    def _unlock(self) -> None:
        subprocess.run(
            self._command("killed", "--unlock"), check=True, capture_output=True, cwd=ROOT
        )

    def _run_to_end(self, name: str) -> None:
        code = subprocess.run(
            self._command(name), stdout=self._log(), stderr=self._log(), cwd=ROOT
        ).returncode
        if code:
            sys.exit(f"the run '{name}' failed; {self.work / 'snakemake.log'} says why")

    def _command(self, name: str, *more: str) -> list[str]:
        directory = self.work / name
        directory.mkdir(exist_ok=True)
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
            *(
                "--directory",
                str(directory),
                "--configfile",
                str(self.study),
                "--cores",
                str(self.cores),
                *more,
            ),
        ]

    def _log(self) -> Any:
        return open(self.work / "snakemake.log", "ab")

    def _note(self, **news: Any) -> None:
        self.state |= news
        (self.work / "state.json").write_text(json.dumps(self.state, indent=2))


def _digests(results: Path) -> dict[str, str]:
    """SHA-256 of every result, without the times that its report tells."""
    return {
        str(file.relative_to(results)): digest(file)
        for file in sorted(results.rglob("*"))
        if file.is_file() and not PASSED_OVER & set(file.parts) and not file.name.startswith(".")
    }


def main() -> None:
    """Read the options and go on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study",
        type=Path,
        default=ROOT / "config.yaml",
        help="config file (default: config.yaml)",
    )
    parser.add_argument("--kills", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--cores", type=int, default=2, help="of each run (default: 2)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "results/.soak", help="where (default: results/.soak)"
    )
    parser.add_argument(
        "--rounds", type=int, default=10**9, help="runs and kills to do now (default: all)"
    )
    options = parser.parse_args()
    study = yaml.safe_load(options.study.read_text())["study"]
    soak = Soak(
        options.work.resolve(), options.study.resolve(), options.kills, options.seed, options.cores
    )
    print(f"study {study}: {len(soak.state['killed'])} of {options.kills} kills done", flush=True)
    if soak.go_on(options.rounds):
        print("all bits are equal")


if __name__ == "__main__":
    main()
