"""The sets of a catalogue that a study probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from saeflow.analyses.probing.settings import Probing
from saeflow.config import read_catalogue
from saeflow.config.sections.labelled import LabelledTexts, TextSource
from saeflow.errors import SaeflowError

_SHOWN = 12


def chosen_sets(file: Path, own: Probing) -> dict[str, LabelledTexts]:
    """The sets that a study names, of those of its catalogue.

    Raises:
        SaeflowError: the catalogue cannot be read, or has no such set.
    """
    offered = read_catalogue(file)
    for place, name in enumerate(own.sets):
        if name not in offered:
            names = ", ".join(list(offered)[:_SHOWN]) + (", …" if len(offered) > _SHOWN else "")
            raise SaeflowError(f"probing.sets.{place}: {file} has no set '{name}' but {names}")
    return {name: offered[name] for name in own.sets}


def parts(sets: Mapping[str, LabelledTexts]) -> Iterator[tuple[str, TextSource]]:
    """Every source of texts by its name: that of a set, and ``set/test_set`` of shifted ones."""
    for name, texts in sets.items():
        yield name, texts
        yield from ((f"{name}/{test}", source) for test, source in texts.shifted.items())
