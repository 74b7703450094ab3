"""What the docs show of a config is one, and their commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from checkout import ROOT
from studies import study_config

from saeflow.analyses import Study
from saeflow.analyses.logit_lens.io import read_set_files
from saeflow.cli.main import app
from saeflow.config import read_goal
from saeflow.kinds import check_any_study

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    pytest.param(line, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, line in enumerate(
        line
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("saeflow ")
    )
]
PROFILE = "# in profiles/"  # opens a snippet of a profile of Snakemake's
SNIPPETS = [
    pytest.param(snippet, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, snippet in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    if not snippet.startswith(PROFILE)
]


def test_what_is_copied_from_a_page_is_no_prompt_and_no_answer() -> None:
    blocks = {
        page.name: re.findall(r"```\w*\n.*?```", page.read_text(), re.DOTALL) for page in PAGES
    }
    assert not [
        (page, block)
        for page, shown in blocks.items()
        for block in shown
        if block.startswith("```console") or re.search(r"^\s*\$ ", block, re.MULTILINE)
    ]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_is_a_study_or_a_part_that_fits_into_a_small_one(
    snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "snippet.yaml"
    file.write_text(snippet)
    shown = yaml.safe_load(snippet)
    keys = set(shown)
    if "positive" in keys:
        read_goal(file)
    elif "sets" in keys:
        assert read_set_files([file])
    else:
        of_language = keys <= set(Study.model_fields)
        base = study_config("minimal-text" if of_language else "minimal-chess")
        steering = {"steering": base["steering"] | shown["steering"]} if "steering" in keys else {}
        check_any_study(base | shown | steering)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_docs_has_the_options_that_it_is_shown_with(line: str) -> None:
    command = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    context = typer.Context(command, info_name="saeflow")
    while isinstance(command, typer.core.TyperGroup):
        name, command, words = command.resolve_command(context, words)
        assert command is not None, f"there is no command {name}"
        context = typer.Context(command, info_name=name, parent=context)
    command.make_context(context.info_name, words, parent=context.parent)


def test_every_page_of_the_docs_is_looked_at() -> None:
    assert len(SNIPPETS) >= 10
    assert len(COMMANDS) >= 20
    assert all(page.is_file() for page in PAGES)


def test_every_analysis_that_is_shipped_has_a_page_that_shows_what_it_says_of_itself() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    pages = sorted((ROOT / "docs/analyses").glob("*.md"))
    for page in pages:
        assert f": analyses/{page.name}\n" in nav
    shown = {page.read_text() for page in pages}
    written = (ROOT / "src/saeflow").rglob("analyses/*/README.md")
    assert shown == {f'--8<-- "{file.relative_to(ROOT).as_posix()}"\n' for file in written}


def test_every_published_release_of_the_docs_names_a_test_that_there_is() -> None:
    page = (ROOT / "docs" / "sae-formats.md").read_text()
    section = page.split("## Published SAEs", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    named = {row: re.findall(r"`(test_\w+)`", row) for row in rows}
    written = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", written, re.MULTILINE))
    assert len(rows) >= 25
    assert not [row for row, tests in named.items() if not tests or not there.issuperset(tests)]


def test_the_first_page_links_every_other() -> None:
    folder = ROOT / "docs"
    linked = set(re.findall(r"\]\(([^)#]+)", (folder / "index.md").read_text()))
    pages = {file.relative_to(folder).as_posix() for file in folder.rglob("*.md")} - {"index.md"}
    assert pages <= linked
    assert all((folder / page).exists() for page in linked)
