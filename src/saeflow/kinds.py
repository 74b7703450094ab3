"""The kinds of studies, and reading a study of whatever kind it is.

``python -m saeflow.kinds [REPOSITORY]`` writes their JSON schemas and the reference of the config.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saeflow.analyses import Study
from saeflow.chess.study import ChessStudy
from saeflow.config.complaints import shown
from saeflow.config.reading import checked, merged_files
from saeflow.config.reference import REFERENCE, reference
from saeflow.config.schema import repository, schema_text, write_text
from saeflow.errors import SaeflowError
from saeflow.figures.figure import declared

if TYPE_CHECKING:
    from saeflow.figures.figure import Figure
    from saeflow.planning.work import Plan

AnyKind = Study | ChessStudy
SCHEMAS = Path("workflow/schemas")


class Kind(NamedTuple):
    """One kind of study."""

    study: type[Study] | type[ChessStudy]
    """Its whole config."""
    schema: Path
    """The JSON schema of that, in the repository."""
    workflow: str
    """The class that tells the rules of it, as MODULE:CLASS; it needs Snakemake."""
    plan: str
    """The function that plans it, as MODULE:FUNCTION."""


KINDS = {
    "language": Kind(
        Study,
        SCHEMAS / "config.schema.yaml",
        "saeflow.analyses.workflow:StudyWorkflow",
        "saeflow.analyses.plan:plan",
    ),
    "chess": Kind(
        ChessStudy,
        SCHEMAS / "chess.schema.yaml",
        "saeflow.chess.workflow:ChessWorkflow",
        "saeflow.chess.plan:plan",
    ),
}
"""By the value of the key `kind`; the first where a config names none."""


def read_any_study(*paths: Path, over: Mapping[str, Any] | None = None) -> AnyKind:
    """Read a study of whatever kind it names from YAML files, later ones over earlier ones.

    Args:
        paths: YAML or JSON files.
        over: values over those of all files, as Snakemake's `--config` gives them.

    Raises:
        SaeflowError: a file cannot be read, or a key is unknown, missing or wrong; all complaints,
            a line each.
    """
    return check_any_study(merged_files(*paths, over=over), ", ".join(map(str, paths)))


def check_any_study(values: dict[str, Any], source: str = "config") -> AnyKind:
    """Turn a mapping into a study of the kind that it names.

    Raises:
        SaeflowError: what is wrong with it, a line per complaint.
    """
    kind = values.get("kind", "language")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SaeflowError(
            f"{source}: kind: must be {' or '.join(map(repr, KINDS))}; got {shown(kind)}"
        )
    return checked(KINDS[kind].study, values, source)


def figures() -> dict[str, Figure]:
    """Every figure that a study of any kind can have, by its name."""
    return {
        figure.name: figure
        for kind in KINDS.values()
        for figure in declared(kind.study, kind.study.analyses)
    }


def workflow_of(study: AnyKind, checkout: Path | None, fetch: Callable[[str], str]) -> Any:
    """What the rules say of a study; see `saeflow.workflow.Workflow`."""
    return _named(KINDS[study.kind].workflow)(study, checkout, fetch)


def plan_of(study: AnyKind, root: Path) -> Plan:
    """What a study would run, and what it needs.

    Args:
        study: of any kind.
        root: the folder that ``results/`` lies in.
    """
    planned: Plan = _named(KINDS[study.kind].plan)(study, root)
    return planned


def _named(place: str) -> Any:
    """What is told as MODULE:NAME."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def main(arguments: list[str]) -> None:
    """Write the schemas and the reference again."""
    root = repository(arguments)
    for kind in KINDS.values():
        write_text(root / kind.schema, schema_text(kind.study))
    studies = {name: kind.study for name, kind in KINDS.items()}
    write_text(root / REFERENCE, reference(studies))


if __name__ == "__main__":
    main(sys.argv[1:])
