"""What a study is run with, and what its stages took."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses import Study
from saeflow.config.any_study import AnyStudy
from saeflow.config.locations import fetches
from saeflow.devices import present
from saeflow.provenance import provenance
from saeflow.report.page import Jobs

_OF_A_STUDY = {"python", "machine", "packages", "commit"}
STAGES_SCHEMA: dict[str, type[pl.DataType]] = {
    "rule": pl.String,
    "jobs": pl.Int64,
    "seconds": pl.Float64,
    "longest_seconds": pl.Float64,
    "cpu_seconds": pl.Float64,
    "peak_mb": pl.Float64,
}


def record_of(study: AnyStudy) -> dict[str, Any]:
    """What is to be known of a study to run it again: a hash of its config, its seed, versions,
    commit, machine."""
    fetched = fetches(study, Path()) if isinstance(study, Study) else {}
    return {
        **{name: value for name, value in provenance().items() if name in _OF_A_STUDY},
        "study": study.study,
        "config": hashlib.sha256(study.model_dump_json(exclude={"calls"}).encode()).hexdigest(),
        "seed": study.seed,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "devices": present(),
        "hub": {key: place.where for key, place in fetched.items()},
        "distributions": _all_versions(),
    }


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None
    )


def stage_table(benchmarks: Path) -> pl.DataFrame:
    """Jobs, wall time, CPU time and peak memory of every rule, the longest first.

    Snakemake looks at a job after half a second and then every half minute at most, so the memory
    of short jobs is too low; a job that ran several times, in several runs, counts as it ran last.

    Args:
        benchmarks: folder with a folder per rule, in which every job has a file of JSON lines.
    """
    rows = []
    for file in sorted(benchmarks.rglob("*.jsonl")):
        lines = file.read_text().splitlines()
        if not lines:
            continue
        record = json.loads(lines[-1])
        rows.append(
            {
                "rule": file.relative_to(benchmarks).parts[0].removesuffix(".jsonl"),
                "seconds": _number(record.get("s")),
                "cpu_seconds": _number(record.get("cpu_time")),
                "peak_mb": _number(record.get("max_rss")),
            }
        )
    if not rows:
        return pl.DataFrame(schema=STAGES_SCHEMA)
    grouped = pl.DataFrame(rows, schema_overrides=STAGES_SCHEMA).group_by("rule")
    table = grouped.agg(
        pl.len().alias("jobs"),
        pl.sum("seconds"),
        pl.max("seconds").alias("longest_seconds"),
        pl.sum("cpu_seconds"),
        pl.max("peak_mb"),
    )
    ordered = table.sort("seconds", "rule", descending=[True, False])
    return ordered.select(pl.col(name).cast(kind) for name, kind in STAGES_SCHEMA.items())


def jobs_of(benchmarks: Path) -> Jobs | None:
    """What the jobs of a study took, and when they ran, by the age of the files that tell of them;
    None where there are none."""
    table = stage_table(benchmarks)
    files = [file for file in benchmarks.rglob("*.jsonl") if file.stat().st_size]
    if table.is_empty():
        return None
    ends = [file.stat().st_mtime for file in files]
    seconds = [_number(json.loads(file.read_text().splitlines()[-1]).get("s")) for file in files]
    first = min(end - (took or 0.0) for end, took in zip(ends, seconds, strict=True))
    began, ended = (datetime.fromtimestamp(moment, tz=UTC) for moment in (first, max(ends)))
    return Jobs(table, began, ended)


def _number(value: Any) -> float | None:
    """A measured number; a job too short to be looked at has none."""
    return float(value) if isinstance(value, int | float) else None


def _all_versions() -> dict[str, str]:
    """The version of every package that this interpreter finds."""
    packages = importlib.metadata.distributions()
    versions = {package.metadata["Name"]: package.version for package in packages}
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))
