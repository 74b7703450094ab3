"""What every analysis keeps to, whichever it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from checkout import ROOT
from studies import study_config

from saeflow.config.face import Analysis
from saeflow.config.section import Section, section_in
from saeflow.kinds import KINDS, AnyKind, check_any_study, workflow_of
from saeflow.options import JSON_OPTIONS

NOT_PASSED = {
    "published": "where else an artifact lies, which is part of its path",
    "source": "whether it is fetched, which is part of its path",
}
ELSEWHERE = {
    "effects.sae": "STUDY.target_sae",
    "effects.dtype": "dtype=STUDY.effects.dtype",
    "probing.absorption": "PROBING.absorption.words",
    "probing.catalogue": 'FLOW.read["probing"]',
    "probing.sets": 'FLOW.read["probing"]',
    "probing.saes": "sae_options(FLOW, PROBING)",
    "steering.sae": "STUDY.target_sae",
    "labels.saes": 'FLOW.names["labelled_sae"]',
    "labels.sources": "label_files(FLOW",
    "labels.imported": "imported_file(FLOW",
    "directions.judged.goal": "PROMPTS.goal",
    "directions.models": 'FLOW.names["directed_model"]',
    "diffing.base": "base(STUDY, STUDY.diffing)",
    "diffing.models": "{compared_model}",
    "diffing.saes": "{diffed_sae}",
    "steering.pairs": "pairs=STUDY.steering.pairs",
    "steering.goals": 'FLOW.read["steering"]',
}
"""Keys that no rule passes as a part of a section, and how a rule reads them."""


class Place(NamedTuple):
    """How the analyses of one kind of study are called outside their folders."""

    smallest: str
    """The smallest config of such a study."""
    rules: str
    """What the names of their files of rules open with."""
    command: str
    """What their rules call, up to the key or the command."""
    core: tuple[str, ...]
    """Sections of the core that rules pass whole."""


PLACES = {
    "language": Place(
        "minimal",
        "",
        "saeflow {key} ",
        (
            *("corpus", "activations", "figures", "publish"),
            *("all_models.{model}.train", "all_models.{model}.tune"),
        ),
    ),
    "chess": Place(
        "minimal-chess",
        "chess_",
        "saeflow chess ",
        (
            *("positions.games", "positions.self_play", "model", "model.shape", "model.train"),
            *("accuracy", "activations", "figures"),
        ),
    ),
}
BESIDE = {"diffing": {"models": [{"name": "other", "train": {"n_layers": 2}}]}}
"""What an analysis needs of the core that the smallest study lacks."""
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
EACH_ANALYSIS = pytest.mark.parametrize(
    ("kind", "analysis"),
    [
        pytest.param(name, analysis, id=f"{name}-{analysis.key}")
        for name, kind in KINDS.items()
        for analysis in kind.study.analyses
    ],
)


def smallest(kind: str, *asked: Analysis[Any, Any]) -> AnyKind:
    """The smallest study of a kind that asks for some analyses; those that the config describes
    as it describes them."""
    values = study_config(PLACES[kind].smallest)
    described = {
        analysis.key: values.pop(analysis.key, {}) for analysis in KINDS[kind].study.analyses
    }
    for analysis in asked:
        values |= {analysis.key: described[analysis.key], **BESIDE.get(analysis.key, {})}
    return check_any_study(values)


def whole(kind: str) -> AnyKind:
    """A study that asks for every analysis, with all that they can make."""
    return smallest(kind, *KINDS[kind].study.analyses)


def rules_of(kind: str, analysis: Analysis[Any, Any]) -> str:
    """The rules of one analysis."""
    return (ROOT / f"rules/{PLACES[kind].rules}{analysis.key}.smk").read_text()


@cache
def all_rules(kind: str) -> str:
    """The rules that a study reads which asks for every analysis."""
    names = workflow_of(whole(kind), ROOT, str).rule_files
    return "\n".join((ROOT / f"rules/{name}.smk").read_text() for name in names)


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


def passed(kind: str) -> set[str]:
    """The dotted keys of the sections that rules pass whole."""
    calls = re.findall(r"(?:FLOW\.)?settings\(([^()]*)\)", all_rules(kind))
    return {".".join(re.findall(r'"([^"]+)"', call)) for call in calls}


@EACH_ANALYSIS
def test_an_analysis_has_its_folder_its_rules_and_its_commands(
    kind: str, analysis: Analysis[Any, Any]
) -> None:
    folder = Path(str(analysis.module("settings").__file__)).parent
    assert folder.name == analysis.key
    assert len((folder / "README.md").read_text().split()) > 100
    assert isinstance(analysis.declared("command", "app"), typer.Typer)
    assert analysis.key in KINDS[kind].study.model_fields
    command = PLACES[kind].command.format(key=analysis.key)
    assert f'"{command}' in rules_of(kind, analysis)


@EACH_ANALYSIS
def test_every_setting_of_an_analysis_reaches_a_rule(
    kind: str, analysis: Analysis[Any, Any]
) -> None:
    keys, rules = passed(kind), all_rules(kind)
    unheard = [
        leaf
        for leaf in leaves(analysis.settings, analysis.key)
        if not any(leaf == key or leaf.startswith(f"{key}.") for key in keys)
        and not any(
            (leaf == key or leaf.startswith(f"{key}.")) and reading in rules
            for key, reading in ELSEWHERE.items()
        )
    ]
    assert not unheard, f"no rule passes {', '.join(unheard)}"


@EACH_KIND
def test_every_setting_of_the_core_reaches_a_rule(kind: str) -> None:
    keys = passed(kind)
    for key in PLACES[kind].core:
        assert key in keys, f"no rule passes {key}"


@EACH_ANALYSIS
def test_outputs_of_an_analysis_are_outputs_of_its_rules(
    kind: str, analysis: Analysis[Any, Any]
) -> None:
    asked = whole(kind)
    own = analysis.section(asked)
    names = set(analysis.names(asked, own)) | {"study", "model", "sae"}
    rules = rules_of(kind, analysis)
    for pattern in analysis.outputs(asked, own):
        assert set(re.findall(r"{(\w+)}", pattern)) <= names
        assert pattern.startswith(f"{analysis.key}/"), "its folder is called as its key"
        made_in_one_go = ("TABLES", "SUMMARIES", "tables(")  # lists that a rule goes over
        listed = any(name in rules for name in made_in_one_go)
        assert Path(pattern).name in rules or listed, pattern


@EACH_ANALYSIS
def test_an_analysis_imports_no_other_but_those_it_builds_on(
    kind: str, analysis: Analysis[Any, Any]
) -> None:
    keys = {other.key for other in KINDS[kind].study.analyses}
    folder = Path(str(analysis.module("settings").__file__)).parent
    text = "\n".join(file.read_text() for file in folder.rglob("*.py"))
    room = re.escape(analysis.package.rpartition(".")[0])
    imported = set(re.findall(rf"{room}\.(\w+)", text)) & keys
    assert analysis.key in imported
    assert imported - {analysis.key} <= set(analysis.builds_on) <= keys


@EACH_ANALYSIS
def test_an_analysis_is_left_out_by_default(kind: str, analysis: Analysis[Any, Any]) -> None:
    bare = smallest(kind)
    assert analysis.section(bare) is None
    assert not bare.asked


def test_every_option_that_rules_give_a_file_in_place_of_json_is_read_from_it() -> None:
    rules = "\n".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
    given = set(re.findall(r"(--[a-z-]+) @<\(", rules))
    assert given
    assert not given - set(JSON_OPTIONS)
