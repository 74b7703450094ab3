"""Baselines in processes of their own, as their users run them, in turn with what is measured
beside them.

saeflow asks torch for large pages when it is imported, by the environment of its process, which
scripts started from there would inherit. This module imports neither: both sides of a comparison
use it, also in an environment without saeflow.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

HERE = Path(__file__).parent
OF_SAEFLOW = ("THP_MEM_ALLOC_ENABLE",)
"""What importing saeflow sets in the environment."""


class Cost(NamedTuple):
    """What a piece of work took, in seconds."""

    wall: float
    cpu: float
    """Of all threads of the process; beside other work on the same cores it says more."""


def cost(work: Callable[[], object], synchronise: Callable[[], object] = lambda: None) -> Cost:
    """What a call takes.

    Args:
        work: called once.
        synchronise: waits for a device, before and after.
    """
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    synchronise()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def medians(costs: Sequence[Cost]) -> Cost:
    """The median of each."""
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def environment() -> dict[str, str]:
    """That of this process, without what saeflow has set in it."""
    return {name: value for name, value in os.environ.items() if name not in OF_SAEFLOW}


class Apart:
    """A script in a process of its own, which does its work once per call and waits in between."""

    def __init__(self, script: str, *words: str, python: str | Path = sys.executable) -> None:
        """Start a script of this folder, which ends in `answer`."""
        self._script = script
        self._process = subprocess.Popen(
            [str(python), str(HERE / script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __call__(self, **what: object) -> Cost:
        """What the script's work took this time; what it is told is JSON."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answered = self._process.stdout.readline()
        if not answered:
            sys.exit(f"{self._script} failed")
        return Cost(*json.loads(answered))


def answer(work: Callable[[Mapping[str, object]], Cost]) -> None:
    """Work once per line of standard input, and say on standard output what each took."""
    for line in sys.stdin:
        print(json.dumps(work(json.loads(line))), flush=True)
