"""A file tells the settings that it was made with, and a job whose study has others refuses it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from checkout import ROOT
from safetensors.numpy import save_file
from studies import changed
from typer.testing import CliRunner

from saeflow import options, provenance
from saeflow.analyses.effects.io import new_table
from saeflow.analyses.steering.settings import Completions, Summary
from saeflow.artifacts import read_json, sealed, write_sealed_json
from saeflow.cli.main import app
from saeflow.config import Corpus, SAETraining
from saeflow.config.digests import settings_digests
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study, read_any_study
from saeflow.seals import check, stamp
from saeflow.tables import read_table, write_table

TABLE = pl.DataFrame({"score": [0.5]})
CONFIG = read_any_study(ROOT / "config.yaml").model_dump(mode="json")


@pytest.fixture(autouse=True)
def given() -> Iterator[None]:
    """A command that has been given nothing yet."""
    provenance.forget()
    yield
    provenance.forget()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study, for whose workflow this process is a job."""
    folder = tmp_path / "results" / "tales"
    monkeypatch.setenv(provenance.DECLARED, str(folder / ".settings.json"))
    start(folder)
    return folder


def start(folder: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Begin a run of the workflow, with the values at dotted keys changed."""
    study = check_any_study(changed(CONFIG, changes or {}))
    provenance.declare(folder / ".settings.json", settings_digests(study))


def give(section: type[Any], values: dict[str, Any], **named: Any) -> None:
    provenance.forget()
    options.parsed(section, json.dumps(values), **named)


def save_tensor(path: Path) -> None:
    with sealed(path) as temporary:
        save_file({"rows": np.ones(3)}, temporary, metadata=stamp())


def save_hdf5(path: Path) -> None:
    with new_table(path) as file:
        file["rows"] = np.ones(2_000_000)


FORMATS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    ".parquet": (lambda path: write_table(path, TABLE), read_table),
    ".safetensors": (save_tensor, check),
    ".h5": (save_hdf5, check),
    ".json": (
        lambda path: write_sealed_json(
            path, {"provenance": provenance.provenance(), "z": [0.5] * 2_000}
        ),
        read_json,
    ),
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_file_of_a_job_that_ended_late_is_noticed_by_its_reader(
    study: Path, suffix: str
) -> None:
    write, read = FORMATS[suffix]
    path = study / "steering" / f"completions{suffix}"
    give(Completions, CONFIG["steering"]["completions"])
    write(path)
    read(path)
    content = path.read_bytes()
    start(study, {"steering.completions.new_tokens": 7})
    with pytest.raises(
        SaeflowError, match=r"another steering\.completions\.new_tokens than the study has now"
    ):
        read(path)
    assert path.read_bytes() == content, "what is refused is left where it is"
    start(study, {"steering.summary.bootstrap": 700})
    read(path)  # made with no key that has changed


def test_the_key_is_compared_that_the_command_was_given_and_no_other(study: Path) -> None:
    give(Completions, {"new_tokens": CONFIG["steering"]["completions"]["new_tokens"]})
    write_table(study / "vector.parquet", TABLE)
    start(study, {"steering.completions.samples": 7})
    assert read_table(study / "vector.parquet").equals(TABLE)


def test_two_saes_that_change_places_are_told_apart(study: Path) -> None:
    training = CONFIG["saes"]["main"]["train"]
    two = {"main": {"train": training}, "wide": {"train": {**training, "k": 3}}}
    start(study, {"saes": two})
    for name, settings in two.items():
        give(SAETraining, settings["train"], name=name)
        write_table(study / "saes" / name / "training.parquet", TABLE)
    start(study, {"saes": {"main": two["wide"], "wide": two["main"]}})
    for name in two:
        with pytest.raises(SaeflowError, match=rf"another saes\.{name}\.train\.k"):
            read_table(study / "saes" / name / "training.parquet")


def test_saes_of_one_job_are_told_by_their_own_settings(study: Path) -> None:
    training = CONFIG["saes"]["main"]["train"]
    start(study, {"saes": {"main": {"train": training}, "wide": {"train": training}}})
    options.parsed_by_name(SAETraining, json.dumps({"main": training, "wide": training}))
    for name in ("main", "wide"):
        write_table(study / "saes" / name / "training.parquet", TABLE)
    start(study, {"saes": {"main": {"train": training}, "wide": {"train": {**training, "k": 3}}}})
    read_table(study / "saes" / "main" / "training.parquet")
    with pytest.raises(SaeflowError, match=r"another saes\.wide\.train\.k"):
        read_table(study / "saes" / "wide" / "training.parquet")


def test_another_seed_is_noticed_too(study: Path) -> None:
    provenance.tell_option("seed", 0)
    write_table(study / "scores.parquet", TABLE)
    start(study, {"seed": 1})
    with pytest.raises(SaeflowError, match="another seed"):
        read_table(study / "scores.parquet")


def test_a_job_of_an_earlier_run_writes_nothing(study: Path) -> None:
    give(Completions, CONFIG["steering"]["completions"])
    start(study, {"steering.completions.samples": 7})
    with pytest.raises(
        SaeflowError, match=r"not written, as the study's steering\.completions\.samples has"
    ):
        write_table(study / "new.parquet", TABLE)
    assert [file.name for file in study.iterdir()] == [".settings.json"]
    write_table(study.parent / "elsewhere.parquet", TABLE)


def test_published_and_linked_files_and_those_of_other_libraries_are_taken_as_they_are(
    study: Path, tmp_path: Path
) -> None:
    give(Completions, {**CONFIG["steering"]["completions"], "samples": 5})
    published = tmp_path / "resources" / "published" / "vector.parquet"
    write_table(published, TABLE)
    (study / "linked.parquet").symlink_to(published)
    TABLE.write_parquet(study / "foreign.parquet")
    for path in (published, study / "linked.parquet", study / "foreign.parquet"):
        assert read_table(path).equals(TABLE)


def test_a_key_that_the_config_no_longer_has_is_nothing_to_compare(study: Path) -> None:
    provenance.tell_settings("Completions", {"of_another_version": 3})
    provenance.tell_settings("OfAnotherVersion", {"samples": 3})
    write_table(study / "old.parquet", TABLE)
    assert read_table(study / "old.parquet").equals(TABLE)


def test_a_command_of_a_person_compares_nothing(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(Summary, {**CONFIG["steering"]["summary"], "bootstrap": 700})
    monkeypatch.delenv(provenance.DECLARED)
    write_table(study / "summary.parquet", TABLE)
    assert read_table(study / "summary.parquet").equals(TABLE)


def test_verify_names_files_that_were_made_with_other_settings(study: Path) -> None:
    give(Summary, CONFIG["steering"]["summary"])
    write_table(study / "summary.parquet", TABLE)
    (study / "config.yaml").write_text(json.dumps(CONFIG))
    assert CliRunner().invoke(app, ["verify", str(study)]).exit_code == 0
    other = changed(CONFIG, {"steering.summary.bootstrap": 700})
    (study / "config.yaml").write_text(json.dumps(other))
    done = CliRunner().invoke(app, ["verify", str(study)])
    assert done.exit_code == 1
    assert (
        f"{study / 'summary.parquet'}: was made with another steering.summary.bootstrap than the study's "
        "config says\n"
    ) in done.output


def test_commands_tell_what_they_were_given_and_not_how_their_process_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["a-notebook", "--seed", "99", "--settings", "{}"])
    corpus = {"kind": "tales", "context": 16, "tokens": {"model": 2048, "sae": 2048, "eval": 2048}}
    path = tmp_path / "eval.safetensors"
    words = ["corpus", "write", "--settings", json.dumps(corpus), "--seed", "5", "--split", "eval"]
    done = CliRunner().invoke(app, [*words, "--output", str(path)])
    assert done.exit_code == 0, done.output
    given = provenance.settings_of(path)
    assert given[provenance.Key(provenance.OPTIONS, "", "seed")] == provenance.digest(5)
    assert {key.key for key in given if key.section == Corpus.__name__} == corpus.keys()
    assert provenance.provenance()["options"] == {"seed": 5}


def test_provenance_holds_no_time_and_no_path() -> None:
    record = provenance.provenance()
    assert record == provenance.provenance()
    assert record["packages"]["numpy"]
    assert str(Path.home()) not in json.dumps(record)
    assert str(ROOT) not in json.dumps(record)
