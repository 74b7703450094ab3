"""Reading a study's files for the report, and writing the report's folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
from safetensors import SafetensorError, safe_open

from saeflow.artifacts import atomic, read_json
from saeflow.config import read_study
from saeflow.errors import SaeflowError
from saeflow.figures.io import matching, read_tables
from saeflow.figures.registry import FIGURES
from saeflow.report.page import StudyResults, render
from saeflow.report.texts import first_samples
from saeflow.tables import read_table

ASSETS = ("style.css", "report.js")
SUFFIXES = ("svg", "png", "csv")
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


def write_report(root: Path, paths: Iterable[Path], output: Path) -> Path:
    """Write the report of a study into a folder that needs nothing beside itself.

    Args:
        root: the study's folder.
        paths: its files that the report shows; config.yaml, steering/summary.parquet and steering/best.parquet must be
            among them, all others may be missing.
        output: the folder to write, ``index.html`` last.

    Returns:
        The page.

    Raises:
        SaeflowError: a file is absent or cannot be read.
    """
    files = sorted(paths, key=str)
    found = gather(root, files)
    for name in ASSETS:
        with atomic(output / "assets" / name) as temporary:
            temporary.write_bytes(resources.files("saeflow.report").joinpath("assets", name).read_bytes())
    for name in found.figures:
        for suffix in SUFFIXES:
            _copy(root / "figures" / f"{name}.{suffix}", output / "figures" / f"{name}.{suffix}")
    page = output / "index.html"
    with atomic(page) as temporary:
        temporary.write_text(render(found), encoding="utf-8")
    return page


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise SaeflowError(f"{source}: no such file; draw the figure again")
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def gather(root: Path, paths: Iterable[Path]) -> StudyResults:
    """Read what the report shows.

    Raises:
        SaeflowError: a file that every report needs is not among the paths, or one that is cannot be read.
    """
    files = sorted(paths, key=str)
    config = _needed(root, files, "config.yaml")
    for table in ("steering/summary.parquet", "steering/best.parquet"):
        _needed(root, files, table)
    samples, scores = _completions(root, files)
    return StudyResults(
        study=read_study(config),
        provenance=_one(root, files, "provenance.json"),
        config=config.read_text(encoding="utf-8"),
        tables=read_tables(root, files),
        figures=_figures(root, files),
        samples=samples,
        scores=scores,
        targets={name: _targets(content) for name, content in _each(root, files, "steering/*/latents.json").items()},
        model_metrics=_one(root, files, "models/*.metrics.json"),
        sae_metrics=_each(root, files, "saes/*/metrics.json"),
        approximator_metrics=_each(root, files, "approximators/*/metrics.json"),
        baseline=_baseline(root, files),
    )


def _needed(root: Path, files: list[Path], name: str) -> Path:
    path = root / name
    if path not in files:
        raise SaeflowError(f"report: {path} is not among the files to show; name it")
    return path


def _one(root: Path, files: list[Path], pattern: str) -> dict[str, Any]:
    """The JSON file that matches; empty where none does."""
    return next((read_json(path) for path in matching(root, files, pattern)), {})


def _each(root: Path, files: list[Path], pattern: str) -> dict[str, Any]:
    """All JSON files that match, by the name of their folder."""
    return {path.parent.name: read_json(path) for path in matching(root, files, pattern)}


def _targets(content: dict[str, Any]) -> dict[int, float]:
    return {int(latent): float(weight) for latent, weight in content.get("latents", {}).items()}


def _completions(root: Path, files: list[Path]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first completions of every scale, and their scores."""
    samples = [first_samples(read_table(path)) for path in matching(root, files, "steering/*/*/completions.parquet")]
    if not samples:
        return pl.DataFrame(), pl.DataFrame()
    shown = pl.concat(samples, how="diagonal_relaxed")
    scores = [
        read_table(path).select("completion_id", "criterion", "score")
        for path in matching(root, files, "steering/*/*/scores.parquet")
    ]
    if not scores:
        return shown, pl.DataFrame()
    return shown, pl.concat(scores, how="diagonal_relaxed").join(shown, on="completion_id", how="semi")


def _figures(root: Path, files: list[Path]) -> dict[str, str]:
    """The figures among the files, with the text that their SVG carries for those who do not see it."""
    found = {}
    for name in FIGURES:
        if any(root / "figures" / f"{name}.{suffix}" in files for suffix in SUFFIXES):
            found[name] = _alternative(root / "figures" / f"{name}.svg") or FIGURES[name].title
    return found


def _alternative(svg: Path) -> str:
    try:
        node = next(ElementTree.parse(svg).iter(DESCRIPTION), None)
    except (OSError, ElementTree.ParseError) as error:
        raise SaeflowError(f"{svg}: cannot be read as SVG ({error}); delete it and it is drawn again") from None
    return (node.text or "") if node is not None else ""


def _baseline(root: Path, files: list[Path]) -> dict[str, Any]:
    """The metadata of the baseline; empty where there is none."""
    for path in matching(root, files, "effects/*/baseline.safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                return dict(json.loads((file.metadata() or {}).get("metadata", "{}")))
        except (SafetensorError, OSError, ValueError) as error:
            raise SaeflowError(f"{path}: is no whole baseline ({error}); delete it and it is made again") from None
    return {}
