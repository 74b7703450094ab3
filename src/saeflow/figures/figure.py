"""What a figure is: declared once, by whoever owns its tables, and known from there to the
workflow, the command that draws it, the plan and the report."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure as Drawing

    from saeflow.config.any_study import AnyStudy
    from saeflow.config.face import Analysis
    from saeflow.config.sections import Figures


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a study."""

    name: str
    """Of its files, ``figures/<name>.png`` and so on."""
    tables: Sequence[str]
    """What it is drawn from: paths below the study's folder, with names in braces for what there
    are several of. Files of one path are read as one table, with a column for each name in braces,
    called by its last word: ``sae`` for ``{lens_sae}``."""
    rows: Callable[..., pl.DataFrame]
    """From those tables, in their order, the settings and the `facts` to the rows that are drawn,
    which are also what its CSV holds. A table that is absent has neither rows nor columns."""
    draw: Callable[[pl.DataFrame, Figures], Drawing]
    """From those rows to the drawing."""
    alt: Callable[[pl.DataFrame], str]
    """From those rows to the text for those who do not see the figure."""
    title: str
    caption: str
    section: str
    """Where it stands in the report."""
    drawn: Callable[[Any], bool] = lambda study: True
    """Whether a study has it."""
    facts: Callable[[Any], Mapping[str, Any]] = lambda study: {}
    """What the rows are told of a study's config beside the tables: words of JSON by the names of
    the arguments of `rows` that take them, which have defaults."""
    names: Callable[[Any], Mapping[str, Sequence[str]]] = lambda study: {}
    """What a name in braces stands for in a study, where it is not all that the name stands for
    elsewhere; a study in which it stands for nothing does not have the figure."""


def declared(
    kind: AnyStudy | type[AnyStudy], analyses: Iterable[Analysis[Any, Any]]
) -> list[Figure]:
    """The figures of the core of a kind of study, then those of some of its analyses, in the order
    of the report.

    Args:
        kind: the class of such studies, or a study.
    """
    figures = list(importlib.import_module(kind.figures_of_core).FIGURES)
    for analysis in analyses:
        figures += analysis.declared("figures", "FIGURES") or ()
    return figures


def figures_of(study: AnyStudy) -> dict[str, Figure]:
    """The figures that a study has, by name."""
    possible = declared(study, (analysis for analysis, _ in study.asked))
    has = (figure for figure in possible if figure.drawn(study))
    return {figure.name: figure for figure in has if all(figure.names(study).values())}
