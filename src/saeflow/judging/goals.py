"""The files of goals, and what a judge asks of them."""

from __future__ import annotations

import difflib
from pathlib import Path

from saeflow.config import Goal, Judge, read_goal
from saeflow.errors import SaeflowError


def read_goal_for(judge: Judge, file: Path) -> Goal:
    """Read one goal's file.

    Args:
        judge: who scores its texts.
        file: the YAML file.

    Raises:
        SaeflowError: it is not there, cannot be read or has something wrong in it, all complaints,
            a line each; or the judge asks for more than it says.
    """
    if not file.exists() and (near := names_like(file.stem, file.parent)):
        meant = " or ".join(map(repr, near))
        raise SaeflowError(f"{file}: no such file; did you mean {meant}?")
    goal = read_goal(file)
    if judge.traits.needs_words and not goal.words:
        raise SaeflowError(
            f"{file}: words: is missing, and the judge '{judge.kind}' counts them; list the words "
            "that show the behaviour, or use another judge"
        )
    return goal


def names_like(name: str, directory: Path) -> list[str]:
    """Goals of a folder whose names are near one that is not there."""
    there = [file.stem for file in directory.glob("*.yaml")] if directory.is_dir() else []
    return [] if name in there else difflib.get_close_matches(name, there, n=2)
