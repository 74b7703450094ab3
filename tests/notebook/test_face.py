"""`import saeflow as sf`: what it offers, when it is loaded, and the examples that it gives."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import saeflow

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTY = ("torch", "transformers", "polars", "numpy", "pydantic", "typer", "saeflow.notebook")


def test_importing_saeflow_and_listing_what_it_offers_loads_nothing() -> None:
    program = f"""
import sys
import saeflow as sf
assert set(sf.__all__) <= set(dir(sf)), dir(sf)
print([name for name in {WEIGHTY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_name_that_saeflow_does_not_offer_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'saeflow' has no attribute 'load_modle'"):
        _ = saeflow.load_modle  # type: ignore[attr-defined]
    assert not hasattr(saeflow, "notebooks")


def test_what_type_checkers_see_is_what_is_offered() -> None:
    """The imports for types and the table of modules name the same functions."""
    import ast

    tree = ast.parse(Path(saeflow.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("saeflow.")
        for alias in node.names
    }
    assert imported.keys() == set(saeflow.__all__)
    for name, module in imported.items():
        assert getattr(saeflow, name).__module__ == module


@pytest.mark.parametrize("name", saeflow.__all__)
def test_the_example_of_every_verb_runs(name: str, here: Path) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(saeflow, name), name, globs={})
    assert example.examples, f"{name} has no example"
    printed: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=printed.append)
    assert not result.failed, "".join(printed)
