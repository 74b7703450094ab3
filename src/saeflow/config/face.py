"""The face of an analysis: what the house knows of it without running it.

An analysis is a folder with a face in its ``__init__.py``, which imports no torch. Whatever lists
analyses (the config's schema, commands, rules, figures, pages, plans) derives the list from faces.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from saeflow.config.section import Complaint, Section
from saeflow.config.sections.published import Fetchable, Source

S = TypeVar("S")
T = TypeVar("T", bound=Section)


class Origin(NamedTuple):
    """Where the config says that an artifact may come from."""

    published: Fetchable | None
    source: Source
    also: str = ""
    """What else decides what becomes of the files, such as an SAE's format."""


@dataclass(frozen=True, kw_only=True)
class Analysis(Generic[S, T]):
    """An analysis of a kind of study ``S``, with the section ``T`` of its config.

    What is told by functions of the study and the section is asked only where the study asks for
    the analysis.

    Beside the face lie ``settings.py``; ``command.py`` with ``app``; ``README.md``; and, where
    there is something to declare, ``figures.py`` with ``FIGURES``, ``page.py`` with ``contribute``,
    ``cost.py`` with ``work`` and ``needs``, and ``rules.py`` with ``READS``, which reads what its
    rules must know of files before any job.
    """

    key: str
    """Of the config's section, of the folder below ``results/<study>/``, of the group of commands,
    of the workflow's target, and of ``rules/<key>.smk``."""
    settings: type[T]
    outputs: Callable[[S, T], Sequence[str]]
    """What it is asked for: paths below the study's folder, with names in braces for what there are
    several of, such as ``examples/{example_sae}/latents.parquet``. The report may read them."""
    builds_on: Sequence[str] = ()
    """Keys of the analyses whose code and results it uses; it imports no other."""
    names: Callable[[S, T], Mapping[str, Sequence[str]]] = lambda study, own: {}
    """What may stand for these names, beside ``study``, ``model`` and ``sae``."""
    complaints: Callable[[S, T], list[Complaint]] = lambda study, own: []
    """What its section says and the rest of the study denies; what it needs that is not asked
    for."""
    cached_saes: Callable[[S, T], Sequence[str]] = lambda study, own: ()
    """SAEs whose activations it reads from caches, which imported SAEs have none of otherwise."""
    origin: Callable[[S, T, tuple[str, ...]], Origin | None] = lambda study, own, parts: None
    """Where a file may be fetched from, by the parts of its path below the study's folder."""
    fetched: Callable[[S, T], Mapping[str, str]] = lambda study, own: {}
    """A path that may be fetched, by the key of the section that says from where."""
    reads: Callable[[S, T], Sequence[str]] = lambda study, own: ()
    """Files that the config names and its page shows, all in one folder."""
    publishes: Sequence[str] = ()
    """Patterns of the files that are published, below the study's folder."""

    def section(self, study: S) -> T | None:
        """Its section of the study's config; None where the study does not ask for it."""
        section: T | None = getattr(study, self.key)
        return section

    @property
    def package(self) -> str:
        """Its folder, as a dotted name."""
        return self.settings.__module__.rpartition(".")[0]

    def module(self, name: str) -> ModuleType | None:
        """One of the modules of its folder, such as ``figures``; None where there is none."""
        path = f"{self.package}.{name}"
        return importlib.import_module(path) if importlib.util.find_spec(path) else None

    def declared(self, module: str, name: str) -> Any:
        """What a module of its folder declares under a name; None where there is nothing."""
        return getattr(self.module(module), name, None)
