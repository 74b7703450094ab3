"""What every analysis keeps to, whichever it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from checkout import ROOT
from studies import study_config

from saeflow.analyses import ANALYSES, Study
from saeflow.config.face import Analysis
from saeflow.config.section import Section, section_in
from saeflow.kinds import check_any_study

RULES = sorted((ROOT / "rules").glob("*.smk"))
NOT_PASSED = {
    "published": "where else an artifact lies, which is part of its path",
    "source": "whether it is fetched, which is part of its path",
}
ELSEWHERE = {
    "effects.sae": "STUDY.target_sae",
    "effects.dtype": "dtype=STUDY.effects.dtype",
    "steering.sae": "STUDY.target_sae",
    "steering.pairs": "pairs=STUDY.steering.pairs",
    "steering.goals": "GoalFiles(FLOW, STUDY.steering)",
}
"""Keys that no rule passes as a part of a section, and how a rule reads them."""
ONE_ANALYSIS = pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.key)


def study() -> Study:
    """A study that asks for every analysis, with all that they can make."""
    asked = {analysis.key: {} for analysis in ANALYSES if analysis.key != "steering"}
    checked = check_any_study(study_config("minimal", asked))
    assert isinstance(checked, Study)
    return checked


def leaves(section: type[Section], above: str) -> Iterator[str]:
    """The dotted keys of all values below a section."""
    for name, field in section.model_fields.items():
        if name in NOT_PASSED:
            continue
        held = section_in(field.annotation)
        if held:
            yield from leaves(held, f"{above}.{name}")
        else:
            yield f"{above}.{name}"


def passed() -> set[str]:
    """The dotted keys of the sections that rules pass whole."""
    text = "\n".join(file.read_text() for file in RULES)
    calls = re.findall(r"(?:FLOW\.)?settings\(([^()]*)\)", text)
    return {".".join(re.findall(r'"([^"]+)"', call)) for call in calls}


def outputs_of_rules() -> str:
    return "\n".join(file.read_text() for file in RULES)


@ONE_ANALYSIS
def test_an_analysis_has_its_folder_its_rules_and_its_commands(
    analysis: Analysis[Any, Any],
) -> None:
    folder = Path(str(analysis.module("settings").__file__)).parent
    assert folder.name == analysis.key
    assert (ROOT / f"rules/{analysis.key}.smk").is_file()
    assert len((folder / "README.md").read_text().split()) > 100
    assert isinstance(analysis.declared("command", "app"), typer.Typer)
    assert analysis.key in Study.model_fields
    rules = (ROOT / f"rules/{analysis.key}.smk").read_text()
    assert f'"saeflow {analysis.key} ' in rules


@ONE_ANALYSIS
def test_every_setting_of_an_analysis_reaches_a_rule(analysis: Analysis[Any, Any]) -> None:
    whole, rules = passed(), outputs_of_rules()
    unheard = [
        leaf
        for leaf in leaves(analysis.settings, analysis.key)
        if not any(leaf == key or leaf.startswith(f"{key}.") for key in whole)
        and not any(
            (leaf == key or leaf.startswith(f"{key}.")) and reading in rules
            for key, reading in ELSEWHERE.items()
        )
    ]
    assert not unheard, f"no rule passes {', '.join(unheard)}"


def test_every_setting_of_the_core_reaches_a_rule() -> None:
    whole = passed()
    for key in ("corpus", "activations", "figures", "publish"):
        assert key in whole, f"no rule passes {key}"
    assert "all_models.{model}.train" in whole


@ONE_ANALYSIS
def test_outputs_of_an_analysis_are_outputs_of_its_rules(analysis: Analysis[Any, Any]) -> None:
    asked = study()
    own = analysis.section(asked)
    names = set(analysis.names(asked, own)) | {"study", "model", "sae"}
    rules = (ROOT / f"rules/{analysis.key}.smk").read_text()
    for pattern in analysis.outputs(asked, own):
        assert set(re.findall(r"{(\w+)}", pattern)) <= names
        assert pattern.startswith(f"{analysis.key}/"), "its folder is called as its key"
        made_in_one_go = ("TABLES", "SUMMARIES", "tables(")  # lists that a rule goes over
        listed = any(name in rules for name in made_in_one_go)
        assert Path(pattern).name in rules or listed, pattern


@ONE_ANALYSIS
def test_an_analysis_imports_no_other_but_those_it_builds_on(analysis: Analysis[Any, Any]) -> None:
    keys = {other.key for other in ANALYSES}
    folder = Path(str(analysis.module("settings").__file__)).parent
    text = "\n".join(file.read_text() for file in folder.glob("*.py"))
    imported = set(re.findall(r"saeflow\.analyses\.(\w+)", text)) & keys
    assert imported - {analysis.key} <= set(analysis.builds_on) <= keys


@ONE_ANALYSIS
def test_an_analysis_is_left_out_by_default(analysis: Analysis[Any, Any]) -> None:
    values = study_config("minimal")
    for other in ANALYSES:
        values.pop(other.key, None)
    bare = check_any_study(values)
    assert isinstance(bare, Study)
    assert analysis.section(bare) is None
    assert not bare.asked
