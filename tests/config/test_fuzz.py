"""Whatever stands in a config, it is read or refused in words, soon, and by `saeflow plan` and
Snakemake alike."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from snakemake.common.configfile import load_configfile
from studies import changed, study_config

from saeflow.cli.study import plan
from saeflow.config import read_goal
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study, read_any_study

SECONDS = 10.0  # hundreds of times what it takes, for busy machines
CHARACTERS = 1000  # of a line, its file apart
STUDY, FULL = study_config("minimal"), study_config("full")  # and of every section something
# fmt: off
VALUES: list[Any] = [
    None, "", "text", [], {}, -1, 0, 1, 10**30, -(10**30), 10**400, 1e308, -0.0, 5e-324, math.nan,
    math.inf, True,
    datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 1, 1), b"\xff\x00", [[1]], [None],
    [[]], "../x", "a b",
    "$(touch ran)", "${HOME}", "${NO_SUCH_NAME}", "a'b\"c", "a\nb", "a\tb", "a\0b", "\x1b[2J",
    "\u202ex", "x" * 5000,
    "x/" * 3000, "🌊", "é", "\ud800", "{goal}", "{", "-rf", "12", "1e-3", {1: 2}, {None: 1},
    {"": 1}, {"a.b": 1},
    {"k" * 3000: 1}, {1, 2}, ["a"] * 3000, list(range(3000)), "http://user:pass@host/v1",
    "http://[", ".", "a.parquet",
    2**63, 2**63 - 1, {"a": {"b": {"c": [1]}}}, [{"role": "user"}], [0, 10**15],
    {"k": list(range(1, 2000))},
]
# fmt: on


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a config, and every item of its lists."""
    if place:
        yield place
    for name, held in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from places(held, (*place, name))


def mutated(dice: random.Random) -> str:
    """A config in which a few values are others, or are gone, or stand under another key."""
    values = copy.deepcopy(FULL)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        *keys, last = dice.choice(list(places(values)))
        section: Any = values
        for key in keys:
            section = section[key]
        match dice.randrange(8):
            case 0:
                del section[last]
            case 1 if isinstance(section, dict):
                section[dice.choice(["x", "Study", "saes", 1, None, True, "\x1b[2J", "a\nb"])] = (
                    section.pop(last)
                )
            case 2 | 3 if type(section[last]) in (int, float, str):
                section[last] *= 2
            case _:
                section[last] = copy.deepcopy(dice.choice(VALUES))
    try:
        return (
            json.dumps(values)
            if dice.random() < 0.3
            else yaml.dump(values, allow_unicode=True, sort_keys=False)
        )
    except TypeError:  # keys and values that JSON does not know
        return yaml.dump(values, allow_unicode=True, sort_keys=False)


def scrambled(dice: random.Random) -> str:
    """A config whose text was edited without care."""
    lines = yaml.safe_dump(FULL, sort_keys=False).splitlines()
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(lines))
        match dice.randrange(6):
            case 0:
                lines.insert(place, dice.choice(lines))
            case 1:
                del lines[place]
            case 2:
                lines[place] = " " * dice.randint(1, 3) + lines[place]
            case 3:
                lines[place] = lines[place].lstrip()
            case 4:
                at = dice.randrange(len(lines[place]) + 1)
                character = dice.choice("\t\0:#&*!|>%@`'\"{}[],?-~=\\\u00a0\u200b\ufeff\x1b🌊")
                lines[place] = lines[place][:at] + character + lines[place][at:]
            case 5:
                key = lines[place].partition(":")[0]
                value = dice.choice(
                    [
                        "!!int x",
                        "!!float x",
                        "!!bool x",
                        "!!timestamp x",
                        "!!binary é",
                        "2020-99-99",
                    ]
                )
                lines[place] = (
                    f"{key}: "
                    f"{dice.choice([value, '!!set {a, b}', '!!omap [a: 1]', '&a [*a]', '!!null x', '.nan'])}"
                )
    return "\n".join(lines)


def verdict(read: Any, source: str) -> str:
    """The study as JSON, or "" where it is refused; anything else fails."""
    start = time.perf_counter()
    try:
        said = json.dumps(read().model_dump(mode="json"))
    except SaeflowError as error:
        said = ""
        for line in str(error).split("\n"):
            assert line.startswith(f"{source}: "), line
            assert line.isprintable(), line
            assert len(line) < len(source) + CHARACTERS, line
    assert time.perf_counter() - start < SECONDS
    return said


def check(text: str, path: Path) -> bool:
    """Hold one text to what is asked of all; returns whether it is a study."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    planned = verdict(lambda: read_any_study(path), str(path))
    try:
        loaded = load_configfile(path)
    except Exception:  # Snakemake's own complaint, before the workflow is asked
        assert not planned
        return False
    run = verdict(lambda: check_any_study(loaded), "config")
    if (
        run != planned
    ):  # the workflow reads the file as `plan` does, as Snakemake takes what is no study
        assert not planned
        with pytest.raises(
            SaeflowError,
            match=r"stands twice|could not determine a constructor|holds itself|recursive",
        ):
            read_any_study(path)
    return bool(planned)


@pytest.mark.parametrize("seed", range(6))
def test_mutated_configs_are_read_or_refused_alike_in_words_and_soon(seed, tmp_path):
    dice = random.Random(seed)
    studies = [check(mutated(dice), tmp_path / "study.yaml") for _ in range(60)]
    assert 1 < sum(studies) < 40, "a fuzz that is always refused, or never, tests little"


def test_scrambled_configs_are_read_or_refused_alike_in_words_and_soon(tmp_path):
    dice = random.Random(0)
    studies = [check(scrambled(dice), tmp_path / "study.yaml") for _ in range(150)]
    assert 3 < sum(studies) < 100


def test_mutated_configs_are_planned_or_refused_in_words(tmp_path, capsys):
    dice = random.Random(1)
    path = tmp_path / "study.yaml"
    plans = 0
    for _ in range(200):
        path.write_bytes(mutated(dice).encode("utf-8", "surrogatepass"))
        with contextlib.suppress(SaeflowError):
            with contextlib.suppress(
                typer.Exit
            ):  # after a plan of what reads a file that is not there
                plan([path], calibrate=False)
            plans += 1
    assert 3 < plans < 150
    assert capsys.readouterr().out.count("total") == plans


def test_a_goal_that_the_workflow_would_refuse_is_refused_by_plan(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(changed(STUDY, {"steering.goals.directory": str(tmp_path)})))
    (tmp_path / "love.yaml").write_text("title: Love\n")
    with pytest.raises(SaeflowError, match=r"love\.yaml: criterion: is missing"):
        plan([path], calibrate=False)


def bomb(name: str, held: str, times: int) -> str:
    """Values that hold one another, nine times each."""
    lines = [f"{name}0: &{name}0 {held}"]
    for i in range(1, times):
        items = (
            [f"*{name}{i - 1}"] * 9
            if held.startswith("[")
            else [f"k{j}: *{name}{i - 1}" for j in range(9)]
        )
        lines.append(f"{name}{i}: &{name}{i} {held[0]}{', '.join(items)}{held[-1]}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (bomb("a", "{a: 1}", 9), r"stands for \d{9} values"),
        (bomb("a", "[1]", 12), "values; the most that a study may hold"),
        ("judge: &j\n  me: *j\n", "recursive"),
        ("a: " + "{a: " * 100 + "1" + "}" * 100, "is nested deeper than 50 levels"),
        ("a: " + "[" * 3000 + "]" * 3000, "recursion"),
        (json.dumps({"seed": 10**400}), "seed: must be a number of at most 64 bits"),
        ("seed: " + "9" * 5000, "is no int"),
        ("seed: 2020-99-99", "is no timestamp"),
        ('{"study": "a", "study": "b"}', "'study' stands twice"),
        ("\n".join(f"k{i}: 1" for i in range(3000)), "and 2954 complaints more"),
    ],
)
def test_what_reads_for_ever_or_not_at_all_is_told_at_once(tmp_path, text, complaint):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(SaeflowError, match=complaint):
        read_any_study(path)
    assert time.perf_counter() - start < SECONDS


def test_a_mapping_that_holds_itself_is_refused_however_it_was_read():
    values = copy.deepcopy(STUDY)
    values["judge"] = {"me": values}
    with pytest.raises(SaeflowError, match="holds itself"):
        check_any_study(values)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"steering.goals.names": ["love", "Love"]},
            "steering.goals.names: 'Love' differs from 'love' in capitals only",
        ),
        ({"saes.Main": {"train": {}}}, "saes: 'Main' differs from 'main' in capitals only"),
        (
            {"models": [{"name": "LM", "train": {}}]},
            "models: 'LM' differs from 'lm' in capitals only",
        ),
        (
            {"saes": {"summary.parquet": {"train": {}}}},
            "saes.summary.parquet: 'summary.parquet' ends as a file of",
        ),
        (
            {"steering.goals.names": ["best.parquet"]},
            "steering.goals.names.0: 'best.parquet' ends as a file of results does",
        ),
        (
            {"model.name": "lm.metrics.json"},
            "model.name: 'lm.metrics.json' ends as a file of results does",
        ),
        (
            {"effects": {"vectors": {"kind": "random", "range": [0, 10**12]}}},
            "effects.vectors.range: is the work of",
        ),
        ({"corpus.tokens.sae": 10**12}, "corpus.tokens.sae: is the work of 7,629,394 jobs"),
        (
            {"saes.main.train.d_sae": 10**12},
            "saes.main.train.d_sae: must be less than or equal to 134217728",
        ),
        (
            {"saes.main.sweep": {"seed": list(range(500)), "k": [4, 5, 6]}},
            "saes.main.sweep: has 1,500 members",
        ),
        (
            {"steering.completions": {"prompts": ["a\0b"]}},
            "steering.completions.prompts.0: holds the character NUL",
        ),
        (
            {"steering.completions": {"prompts": ["\ud800"]}},
            "steering.completions.prompts.0: holds half of a character",
        ),
        (
            {"steering.goals.directory": "x" * 300},
            "steering.goals.directory: is longer than a path can be",
        ),
        (
            {"effects.measurement": {"scale": {"value": math.nan}}},
            "effects.measurement.scale.value: must be a finite number",
        ),
    ],
)
def test_what_would_plan_wrong_is_refused_by_its_key(changes, complaint):
    with pytest.raises(SaeflowError) as caught:
        check_any_study(changed(STUDY, changes))
    assert f"config: {complaint}" in str(caught.value)


def test_later_files_change_no_other_key_that_shares_a_value(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    values = yaml.safe_dump({**STUDY, "saes": {}}).replace("saes: {}\n", "")
    first.write_text(f"{values}saes:\n  main: &m {{train: {{d_sae: 64}}}}\n  other: *m\n")
    second.write_text("saes: {main: {train: {d_sae: 32}}}\n")
    study = read_any_study(first, second, over={"seed": 3})
    assert (study.saes["main"].train.d_sae, study.saes["other"].train.d_sae, study.seed) == (
        32,
        64,
        3,
    )


def test_the_command_line_says_null_and_numbers_as_a_file_does(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    # as Snakemake reads --config steering=null 'effects={vectors: {range: [0, 32]}}' and so on
    over = {
        "steering": "null",
        "effects": {"vectors": {"range": ["0", "32"]}, "sae": "main"},
        "activations": {"compress": "true"},
        "examples": {},
        "saes": {"main": {"train": {"learning_rate": "3e-4"}}},
    }
    study = read_any_study(path, over=over)
    assert study.steering is None
    assert study.effects.vectors.range == [0, 32]
    assert study.effects.sae == "main"
    assert study.activations.compress is True
    assert study.examples is not None
    assert study.saes["main"].train.learning_rate == 3e-4


def test_numbers_of_a_json_config_are_those_of_json(tmp_path):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(changed(STUDY, {"saes.main.train.learning_rate": 1e-5})))
    assert "1e-05" in path.read_text()
    assert read_any_study(path).saes["main"].train.learning_rate == 1e-5


def test_a_goal_that_no_file_can_hold_is_refused(tmp_path):
    path = tmp_path / "anger.yaml"
    path.write_text('title: "\\ud800"\ncriterion: x\npositive: [a, b]\nnegative: [c, d]\n')
    with pytest.raises(SaeflowError, match="title: holds half of a character"):
        read_goal(path)
