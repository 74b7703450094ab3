"""Labelled texts of packages and hubs: fetched from servers of this machine, by the command that the
rule calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hub_server import environment, serving
from package_index import pip_environment, serving_packages

from saeflow.config.sections.labelled import TextSource
from saeflow.config.sections.published import DataPackage, Published
from saeflow.corpora.labelled import read_labelled
from saeflow.hub.labelled import (
    Wanted,
    package_folder,
    published_folder,
    sources_of,
    together,
)

ROWS = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))
OTHER = ROWS.replace("text ", "another ").replace("another label", "text,label")


def fetch(wanted: Wanted, output: Path, variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "saeflow.cli.main", "fetch", "labelled"]
    command += ["--sources", wanted.model_dump_json(), "--output", str(output)]
    environment_of = {name: value for name, value in {**os.environ, **variables}.items() if value}
    done = subprocess.run(command, env=environment_of, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def first_text(file: Path) -> Any:
    return read_labelled(TextSource(path=str(file)), "set", file).prompts[0]


def test_files_of_one_name_in_two_folders_of_a_package_are_two(tmp_path: Path) -> None:
    files = {"data/own/set.csv": ROWS.encode(), "data/far/set.csv": OTHER.encode()}
    packages = [DataPackage(name="sets", version="1.0", file=file) for file in files]
    ((folder, wanted),) = sources_of(packages, [], "probing.sets").items()
    assert folder == package_folder(packages[0])
    with serving_packages() as index:
        index.add("sets", "1.0", files)
        fetch(wanted, tmp_path / "labelled", pip_environment(index.url))
        assert sum(path.endswith(".whl") for path in index.asked) == 1
    assert first_text(tmp_path / "labelled/data/own/set.csv") == "text 0"
    assert first_text(tmp_path / "labelled/data/far/set.csv") == "another 0"
    record = json.loads((tmp_path / "labelled/published.json").read_text())
    assert [each["file"] for each in record["files"]] == list(files)


def test_files_of_a_hub_are_those_of_one_commit_at_their_places(tmp_path: Path) -> None:
    files = {"own/set.csv": ROWS.encode(), "far/set.csv": OTHER.encode(), "other.csv": b"x"}
    published = [
        Published(repo="some/sets", repo_type="dataset", file=file)
        for file in ("own/set.csv", "far/set.csv")
    ]
    ((folder, wanted),) = sources_of([], published, "probing.sets").items()
    assert folder == published_folder(published[0])
    with serving() as hub:
        hub.add("some/sets", files, "datasets")
        fetch(wanted, tmp_path / "labelled", environment(hub, tmp_path / "home"))
        assert not hub.fetches("other.csv")
    assert first_text(tmp_path / "labelled/own/set.csv") == "text 0"
    assert first_text(tmp_path / "labelled/far/set.csv") == "another 0"


def test_no_file_leads_out_of_the_folder_for_it() -> None:
    package = DataPackage(name="sets", version="1.0", file="../../etc/set.csv")
    assert package.place == "etc/set.csv"


def test_what_two_analyses_name_is_fetched_once_and_files_of_one_source_together() -> None:
    own, far = (DataPackage(name="sets", version="1.0", file=f"{name}.csv") for name in ("a", "b"))
    wanted = together(
        [
            *sources_of([own, far], [], "probing.sets").items(),
            *sources_of([far], [], "geometry.points.lines").items(),
        ]
    )
    assert wanted == {
        package_folder(own): Wanted(key="probing.sets", packages=[own, far]),
    }
