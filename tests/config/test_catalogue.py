"""A catalogue names sets of labelled texts; what is wrong with it opens with the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import ROOT

from saeflow.config import read_catalogue
from saeflow.errors import SaeflowError


def written(folder: Path, text: str) -> Path:
    path = folder / "sets.yaml"
    path.write_text(text)
    return path


def test_defaults_count_for_sets_and_columns_for_their_shifted_tests(tmp_path: Path) -> None:
    sets = read_catalogue(
        written(
            tmp_path,
            """
            defaults: {text: prompt, label: target, package: {name: p, version: "1"}}
            sets:
              a:
                package: {file: a.csv}
                shifted:
                  far: {package: {file: far.csv}}
                  own: {path: own.csv, value: n}
              b: {path: b.csv, package: null, text: said}
            """,
        )
    )
    far, own = sets["a"].shifted["far"], sets["a"].shifted["own"]
    assert (far.text, far.label) == ("prompt", "target")
    assert far.package is not None
    assert (far.package.name, far.package.file) == ("p", "far.csv")
    assert (own.label, own.value, own.package) == (None, "n", None)
    assert (sets["b"].text, sets["b"].label) == ("said", "target")


def test_what_is_wrong_with_a_set_opens_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match=r"sets\.a\.path: 'x\.doc' must end in one of \.csv"):
        read_catalogue(written(tmp_path, "sets: {a: {path: x.doc}}"))
    with pytest.raises(SaeflowError, match=r"sets\.a\.colour"):
        read_catalogue(written(tmp_path, "sets: {a: {path: x.csv, colour: red}}"))


def test_catalogues_that_come_along_name_sets_with_licence_and_task() -> None:
    for file, count in (("tales", 4), ("sae-probes", 136)):
        sets = read_catalogue(ROOT / f"workflow/labelled/{file}.yaml")
        assert len(sets) == count
        assert all(texts.licence and texts.task for texts in sets.values())
    assert sum(bool(texts.shifted) for texts in sets.values()) == 7
