"""Notebooks without a kernel: their code runs cell by cell in one namespace, and what it prints and
shows is kept as text.

``python tests/support/notebooks.py NOTEBOOK`` writes the outputs of a notebook anew.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import nbformat


def executed(notebook: Path) -> Any:
    """The notebook with the outputs that its cells give now.

    Raises:
        Exception: whatever a cell raises.
    """
    book = nbformat.read(notebook, as_version=4)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), 1):
        cell.execution_count = number
        cell.outputs = _outputs(cell.source, number, namespace, notebook.name)
    return book


def _outputs(source: str, number: int, namespace: dict[str, Any], name: str) -> list[Any]:
    """Run a cell; what it prints, and the value of its last line if that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, where, value = io.StringIO(), f"{name}, cell {number}", None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), where, "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), where, "eval"), namespace)
    outputs = []
    if printed.getvalue():
        outputs.append(nbformat.v4.new_output("stream", name="stdout", text=printed.getvalue()))
    if value is not None:
        shown = {"text/plain": repr(value)}
        outputs.append(nbformat.v4.new_output("execute_result", data=shown, execution_count=number))
    return outputs


if __name__ == "__main__":
    for given in map(Path, sys.argv[1:]):
        book = executed(given)
        nbformat.write(book, given)
