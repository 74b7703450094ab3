"""The layout that docs/design.md promises: imports run one way, files stay short, torch is imported
late; and tests are laid out as the source is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

SOURCE = ROOT / "src" / "saeflow"
ANYWHERE = [
    "errors",
    "jobs",
    "provenance",
    "seeds",
    "seals",
    "artifacts",
    "devices",
    "products",
    "compiling",
    "columns",
    "counting",
    "threads",
    "starting",
    "checkpoints",
    "terminal",
    "palette",
    "unpacking",
]
ORDER = [
    *ANYWHERE,
    "tensors",
    "tables",
    "parts",
    "statistics",
    "pursuits",
    "config",
    "hub",
    "corpora",
    "models",
    "activations",
    "saes",
    "options",
    "decoding",
    "endpoint",
    "judging",
    "figures",
    "planning",
    "workflow",
    "report",
    "analyses",
    "publishing",
    "describe",
    "chess",
    "kinds",
    "notebook",
    "cli",
]
FACE = ["notebook"]  # what `import saeflow` may offer
# Wholes that their parts may name as a type: a study is checked by what must agree in it, hooks are of
# a model.
WHOLES = {
    "saeflow.analyses",
    "saeflow.config.sections",
    "saeflow.models.language_model",
    "saeflow.chess.study",
}
LONGEST_FILE = 500
# What must start at once: `saeflow --help`, checking a config, drawing a figure.
LIGHT = [
    *("config", "options.py", "cli", "figures", "analyses/steering/summary.py"),
    *("analyses/probing/page.py", "analyses/geometry/page.py"),
]
HEAVY = ["torch", "transformers"]
TRACKED = ["src", "rules", "workflow", "Snakefile", "config.yaml"]
MACHINE_PATH = re.compile(r"(?<![\w.}/])/(?:home|root|Users|work|mnt|scratch|tmp)/|\b[A-Z]:\\\\")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")

# A test that imports another, in a program that it starts, too; and a test that looks for its own.
IMPORTS_A_TEST = re.compile(r"^\s*[\"']?(?:from (?:test_\w+|conftest) import|import test_)", re.M)
TESTS = ROOT / "tests"
NO_ROOM = ["ground", "workflow"]  # what all rooms stand on, and real runs of the Snakefile

MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(file: Path) -> str:
    """A module's dotted name."""
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULE_NAMES = {name_of(file) for file in MODULES}


def folder_of(module: str) -> str:
    """The folder or top-level module of a dotted name; "" for saeflow itself."""
    return f"{module}..".split(".")[1]


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of saeflow, those inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name)
                for alias in node.names
                if alias.name.split(".")[0] == "saeflow"
            )
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{file}:{node.lineno}: imports are absolute in this house")
        elif isinstance(node, ast.ImportFrom) and node.module == "saeflow":
            yield from ((node.lineno, f"saeflow.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("saeflow."):
            yield node.lineno, str(node.module)


def imported_modules(file: Path) -> set[str]:
    """The dotted names of the modules that a file imports, or imports something of; wholes that are
    named as a type alone are left out."""
    imported: set[str] = set()
    nodes: list[tuple[ast.AST, bool]] = [(ast.parse(file.read_text(encoding="utf-8")), False)]
    while nodes:
        node, typing = nodes.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names} & MODULE_NAMES
            modules = named if len(named) == len(node.names) else named | {node.module}
            imported |= modules - WHOLES if typing else modules
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        typing = typing or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        nodes += [(child, typing) for child in ast.iter_child_nodes(node)]
    return imported & MODULE_NAMES - {name_of(file)}


def modules_below(place: str) -> list[str]:
    """The dotted names of all modules of a folder, or of one file."""
    return [
        name_of(file)
        for file in MODULES
        if file == SOURCE / place or (SOURCE / place) in file.parents
    ]


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *TRACKED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_folder_has_its_place_in_the_order() -> None:
    unplaced = {folder_of(name_of(file)) for file in MODULES} - {"", *ORDER}
    assert not unplaced, (
        f"{unplaced} has no place in ORDER: what may it import, and who may import it?"
    )


def test_imports_run_from_later_folders_to_earlier_ones() -> None:
    wrong = []
    for file in MODULES:
        importer = folder_of(name_of(file))
        for line, module in imports(file):
            imported = folder_of(module)
            allowed = ORDER[: ORDER.index(importer) + 1] if importer in ORDER else FACE
            if imported and imported not in (*allowed, *ANYWHERE):
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {importer} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count, and those for types, too."""
    graph = {name_of(file): imported_modules(file) for file in MODULES}
    while True:
        imported = set().union(*graph.values())
        inside = {name for name, targets in graph.items() if targets & graph.keys()} & imported
        if inside == graph.keys():
            break
        graph = {name: graph[name] & inside for name in inside}
    circle = [f"{name} imports {', '.join(sorted(targets))}" for name, targets in graph.items()]
    assert not circle, "\n".join(circle)


def test_no_file_is_longer_than_a_reader_s_patience() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES}
    wrong = [
        f"{file.relative_to(ROOT)}: {length} lines"
        for file, length in lengths.items()
        if length > LONGEST_FILE
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("place", LIGHT)
def test_what_must_start_at_once_imports_no_torch(place: str) -> None:
    modules = modules_below(place)
    assert modules, f"{place}: is not there"
    program = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    heavy = [name for name in {HEAVY} if name in sys.modules]
    if heavy:
        sys.exit(f"{{module}} imports {{', '.join(heavy)}}")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_figures_there_are_is_known_without_matplotlib_torch_and_scipy() -> None:
    """Every job that draws asks for it, and the Snakefile."""
    program = "import sys; from saeflow import kinds; assert kinds.figures()"
    program += f"; assert not {{'matplotlib', 'scipy', *{HEAVY}}} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tracked_files_name_no_machine_and_leave_nothing_unfinished() -> None:
    wrong = []
    for file in tracked_files():
        for number, line in enumerate(
            file.read_text(encoding="utf-8", errors="ignore").splitlines(), 1
        ):
            wrong += (
                [f"{file.relative_to(ROOT)}:{number}: {line.strip()}"]
                if MACHINE_PATH.search(line)
                else []
            )
            wrong += (
                [f"{file.relative_to(ROOT)}:{number}: {line.strip()}"]
                if UNFINISHED.search(line)
                else []
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("open('/work/x')", True),
        ("path: /home/me/model", True),
        ("C:\\\\Users\\\\me", True),
        ("results/work/x", False),
        ("https://example.org/home/page", False),
        ("src/tmp/", False),
    ],
)
def test_paths_of_machines_are_told_from_others(line: str, is_one: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is is_one


def test_no_test_imports_another() -> None:
    files = sorted(TESTS.rglob("*.py"))
    wrong = [file.name for file in files if IMPORTS_A_TEST.search(file.read_text("utf-8"))]
    assert not wrong, f"{wrong}: what tests share lies in tests/support"


def test_no_test_changes_where_modules_are_looked_for() -> None:
    places = ("sys" + ".path.append", "sys" + ".path.insert")
    files = sorted(TESTS.rglob("*.py"))
    wrong = [
        file.name for file in files if any(place in file.read_text("utf-8") for place in places)
    ]
    assert not wrong, f"{wrong}: pytest's `pythonpath` in pyproject.toml names tests/support"


def test_tests_lie_in_the_rooms_of_what_they_test() -> None:
    folders = {file.parent.relative_to(TESTS) for file in TESTS.rglob("test_*.py")}
    rooms = {folder for folder in folders if folder.parts[:1] not in [(name,) for name in NO_ROOM]}
    wrong = sorted(str(room) for room in rooms if not (SOURCE / room / "__init__.py").is_file())
    assert not wrong, f"tests/{', tests/'.join(wrong)}: saeflow has no such folder"


def test_nothing_of_the_core_knows_the_wing_of_chess() -> None:
    may = {"kinds.py", "cli/main.py"}
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: imports {module}"
        for file in MODULES
        for line, module in imports(file)
        if folder_of(module) == "chess"
        and folder_of(name_of(file)) != "chess"
        and file.relative_to(SOURCE).as_posix() not in may
    ]
    assert not wrong, "\n".join(wrong)
