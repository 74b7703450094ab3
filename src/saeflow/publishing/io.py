"""Reads what a study publishes, writes the card, and uploads both."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl
import yaml

from saeflow.analyses.reading import read_study
from saeflow.artifacts import atomic, read_json, sha256, write_sealed_json
from saeflow.config.sections import Publish
from saeflow.errors import SaeflowError
from saeflow.hub.upload import Target, upload
from saeflow.publishing.card import Results, card
from saeflow.publishing.contents import ALWAYS, Item, packed, without_places
from saeflow.tables import read_table

CARD, RECORD = "README.md", "record.json"


class Parcel(NamedTuple):
    """What would be uploaded."""

    settings: Publish
    files: dict[str, Path]
    """By their names in the repository; the card first."""
    left_out: list[str]
    """What was asked for and is not there."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(path.stat().st_size for path in self.files.values())


def pack(root: Path, settings: Publish, directory: Path) -> Parcel:
    """Write the card, and the config without this machine's paths, and list what goes with them.

    Args:
        root: the study's folder.
        settings: where to, and what.
        directory: where the card is written.

    Raises:
        SaeflowError: no repository is named, or a file is absent.
    """
    if not settings.repo:
        raise SaeflowError("publish.repo: is needed; name the repository as owner/name")
    for name in ALWAYS:
        if not (root / name).is_file():
            raise SaeflowError(f"{root / name}: no such file; run the study first")
    study = read_study(root / "config.yaml")
    items, left_out = packed(root, study, settings.contents)
    with atomic(directory / "config.yaml") as temporary:
        values = without_places(study).model_dump(mode="json")
        temporary.write_text(
            yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    with atomic(directory / CARD) as temporary:
        temporary.write_text(card(study, settings, items, _results(root, items)), encoding="utf-8")
    beside = {
        CARD: directory / CARD,
        "config.yaml": directory / "config.yaml",
        ALWAYS[1]: root / ALWAYS[1],
    }
    return Parcel(settings, beside | {item.name: item.path for item in items}, left_out)


def send(parcel: Parcel, message: str) -> str:
    """Upload in one commit; gives it back. Raises as `saeflow.hub.upload.upload` does."""
    settings = parcel.settings
    return upload(
        Target(str(settings.repo), settings.repo_type, settings.private), parcel.files, message
    )


def write_record(parcel: Parcel, commit: str | None, directory: Path) -> None:
    """Write what was uploaded, or would be where ``commit`` is None, with checksums."""
    settings = parcel.settings
    files = {
        name: {"sha256": sha256(path), "bytes": path.stat().st_size}
        for name, path in parcel.files.items()
    }
    record = {
        "repo": settings.repo,
        "repo_type": settings.repo_type,
        "commit": commit,
        "files": files,
    }
    write_sealed_json(directory / RECORD, record)


def _results(root: Path, items: list[Item]) -> Results:
    best = root / "steering" / "best.parquet"
    provenance = read_json(root / ALWAYS[1])
    return Results(
        # every package that was there is listed in the file itself
        provenance={name: value for name, value in provenance.items() if name != "distributions"},
        metrics={
            item.name: read_json(item.path) for item in items if item.name.endswith("metrics.json")
        },
        best=read_table(best) if best.is_file() else pl.DataFrame(),
    )
