"""What a user sees when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from saeflow.terminal import printable


class SaeflowError(Exception):
    """A mistake or a mishap told in one sentence: what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 1; a traceback is reserved for
    defects of saeflow itself.
    """


class DamagedError(SaeflowError):
    """A file is damaged or gone that a job of a workflow may have written.

    The library leaves files alone. A job's command removes those of its own study, so that the next
    run of the workflow makes them again and nothing else; see `saeflow.cli.clearing`.

    Args:
        problem: which file, and what is wrong with it.
        remade: the files that must be gone for the workflow to make them again.
    """

    def __init__(self, problem: str, remade: Sequence[Path]) -> None:
        self.problem, self.remade = problem, [Path(file) for file in remade]
        names = " and ".join(file.name for file in self.remade)
        them = "it" if len(self.remade) == 1 else "them"
        super().__init__(
            f"{problem}; if the workflow made {names}, remove {them} and start again, else get "
            "anew what is damaged"
        )


def warn(message: str) -> None:
    """Say in one sentence what the user should look at, on the error output, and go on."""
    print(printable(f"saeflow: warning: {message}"), file=sys.stderr)
