"""The rooms of the source and what they import, as a Mermaid graph.

``python -m saeflow.describe.house [REPOSITORY]`` writes it into docs/design.md, between the two
comments that mark its place.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from saeflow.config.schema import repository, write_text

PAGE = Path("docs/design.md")
PLACE = re.compile(r"(<!-- rooms -->\n).*?(<!-- end of rooms -->)", re.DOTALL)
GROUND = "ground"
"""What modules that lie in no folder are drawn as, but for those of `ABOVE`."""
ABOVE = ("kinds", "workflow", "options", "notebook")


def imported_modules(file: Path) -> Iterator[str]:
    """The dotted names of saeflow's modules that a file imports, inside functions too, but not what
    it names as types alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "saeflow":
            yield from (f"saeflow.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(module: str, folders: set[str]) -> str | None:
    """The room of a dotted name: a folder, or the ground for what lies in none; analyses are rooms
    of their own."""
    parts = module.split(".")
    if parts[0] != "saeflow" or len(parts) < 2:
        return None
    if parts[1] == "analyses" and len(parts) > 2 and f"analyses.{parts[2]}" in folders:
        return f"analyses.{parts[2]}"
    return parts[1] if parts[1] in folders or parts[1] in ABOVE else GROUND


def rooms(source: Path) -> dict[str, set[str]]:
    """Every room with the rooms that it imports.

    Args:
        source: the folder of the package.
    """
    folders = {path.name for path in source.iterdir() if (path / "__init__.py").is_file()}
    folders |= {f"analyses.{path.parent.name}" for path in source.glob("analyses/*/__init__.py")}
    edges: dict[str, set[str]] = {}
    for file in sorted(source.rglob("*.py")):
        own = ".".join(file.relative_to(source.parent).with_suffix("").parts)
        room = room_of(own.removesuffix(".__init__"), folders)
        if room is None:
            continue
        imported = {room_of(name, folders) for name in imported_modules(file)}
        if room.startswith("analyses."):
            imported -= {"analyses"}  # what lists all analyses; rules name the study's type from it
        edges.setdefault(room, set()).update(filter(None, imported - {room}))
    return edges


def without_detours(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The edges that no longer way through other rooms stands for."""

    def reached(room: str, seen: frozenset[str] = frozenset()) -> set[str]:
        onward = edges.get(room, set()) - seen
        return onward.union(*(reached(next_room, seen | {room}) for next_room in onward))

    below = {room: reached(room) for room in edges}
    return {
        room: {
            other
            for other in others
            if not any(other in below.get(between, ()) for between in others - {other})
        }
        for room, others in edges.items()
    }


def mermaid(source: Path) -> str:
    """The graph; an arrow leads from a room to one that it imports."""
    lines = ["```mermaid", "graph BT"]
    for room, others in sorted(without_detours(rooms(source)).items()):
        lines += [f"  {room} --> {other}" for other in sorted(others)]
    return "\n".join([*lines, "```", ""])


def main(arguments: list[str]) -> None:
    """Write the graph into its page."""
    root = repository(arguments)
    page = (root / PAGE).read_text(encoding="utf-8")
    graph = mermaid(root / "src/saeflow")
    write_text(root / PAGE, PLACE.sub(lambda place: f"{place[1]}{graph}{place[2]}", page))


if __name__ == "__main__":
    main(sys.argv[1:])
