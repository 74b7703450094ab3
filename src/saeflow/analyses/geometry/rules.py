"""What the rules of geometry say of a study."""

from __future__ import annotations

from saeflow.analyses import Study
from saeflow.analyses.geometry.settings import Geometry
from saeflow.workflow import Workflow


def files_of(own: Geometry) -> dict[str, str]:
    """The files of lines, by ``<line>`` and ``<line>/<other texts>``, as the config names them."""
    named = {name: line.texts.path for name, line in own.points.lines.items()}
    for name, line in own.points.lines.items():
        named |= {f"{name}/{other}": source.path for other, source in line.read_off.items()}
    return {name: path for name, path in named.items() if path}


def text_files(flow: Workflow[Study]) -> dict[str, str]:
    """Those files where they lie."""
    own = flow.study.geometry
    return {name: flow.sought(path) for name, path in files_of(own).items()} if own else {}
