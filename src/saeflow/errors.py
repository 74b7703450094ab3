"""What a user sees when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


class SaeflowError(Exception):
    """A mistake or a mishap told in one sentence: what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 1; a traceback is reserved for
    defects of saeflow itself.
    """


class DamagedError(SaeflowError):
    """A file that a job of the workflow can make again is damaged or gone.

    The library leaves files alone. The command line removes those that stand in the way, so that the next run of the
    workflow makes them again and nothing else.

    Args:
        problem: which file, and what is wrong with it.
        remade: the files that must be gone for the workflow to make them again.
    """

    def __init__(self, problem: str, remade: Sequence[Path]) -> None:
        self.problem, self.remade = problem, [Path(file) for file in remade]
        names = " and ".join(file.name for file in self.remade)
        super().__init__(f"{problem}; delete {names}, start again, and what is missing is made again")


def warn(message: str) -> None:
    """Say in one sentence what the user should look at, on the error output, and go on."""
    print(f"saeflow: warning: {message}", file=sys.stderr)
