"""``saeflow study`` and ``saeflow plan``: what is run, and what it needs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import options
from saeflow.counting import counted
from saeflow.errors import SaeflowError
from saeflow.provenance import Digests

if TYPE_CHECKING:
    from saeflow.planning.work import Plan, StagePlan

app = typer.Typer(help="Record what a study runs.", no_args_is_help=True)
StudyFolder = Annotated[Path, typer.Argument(help="Folder of a study's results.")]


@app.callback()
def stage() -> None:
    """Record what a study runs."""


@app.command()
def record(
    study: options.Settings,
    config: Annotated[Path, typer.Option(help="Where the full config is written.")],
    provenance: Annotated[
        Path, typer.Option(help="Where versions, commit and machine are written.")
    ],
) -> None:
    """Write the config with every default filled in, and what it is run with."""
    import yaml

    from saeflow import seals
    from saeflow.artifacts import sealed, write_sealed_json
    from saeflow.describe.study import record_of
    from saeflow.kinds import check_any_study

    values = check_any_study(options.parsed_facts(study, "--study"), "--study")
    text = yaml.safe_dump(values.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with sealed(config) as temporary:
        temporary.write_text(f"# {seals.BLANK}\n{text}", encoding="utf-8")
    write_sealed_json(provenance, record_of(values))


@app.command()
def stages(study: StudyFolder) -> None:
    """Write benchmarks/stages.parquet and .csv: jobs, wall time, CPU time and peak memory of every
    rule."""
    options.set_pools(1)
    from saeflow.describe.study import stage_table
    from saeflow.tables import write_table

    table = stage_table(study / "benchmarks")
    for suffix in ("parquet", "csv") if len(table) else ():
        write_table(study / "benchmarks" / f"stages.{suffix}", table)


def diff(
    first: Annotated[Path, typer.Argument(metavar="one", help="Folder of a study's results.")],
    second: Annotated[Path, typer.Argument(metavar="other", help="Folder of another's.")],
) -> None:
    """Name what differs between two studies: config, versions, results. Ends with 1 if something
    does."""
    options.set_pools(1)
    from saeflow.describe.difference import differences

    lines = list(differences(first, second))
    for line in lines:
        options.say(line)
    if lines:
        raise typer.Exit(1)
    options.say(f"{first} and {second}: no difference in config, versions and results")


def verify(study: StudyFolder) -> None:
    """Compare every file of a study with its checksum and the study's config; changes nothing.
    Ends with 1 if a file is damaged or was made with other settings."""
    options.set_pools(1)
    from saeflow.config.digests import settings_digests
    from saeflow.describe import integrity
    from saeflow.kinds import read_any_study

    declared: Digests = {}
    with suppress(SaeflowError):  # a config that cannot be read is told among the files
        declared = settings_digests(read_any_study(study / "config.yaml"))
    verdicts = list(integrity.verify(study, declared))
    faults = [verdict.fault for verdict in verdicts if verdict.fault]
    unvouched = [
        verdict.path.relative_to(study).as_posix() for verdict in verdicts if not verdict.vouched
    ]
    for fault in faults:
        options.say(fault)
    for name in unvouched:
        options.say(f"no checksum: {name}")
    whole = len(verdicts) - len(faults) - len(unvouched)
    options.say(
        f"{study}: {counted(whole, 'file')} as written, {len(faults):,} damaged or made with other "
        f"settings, {len(unvouched):,} without checksum"
    )
    if faults:
        raise typer.Exit(1)


def adopt(
    study: StudyFolder,
    config: Annotated[
        list[Path], typer.Argument(help="The study's config files, later ones over earlier ones.")
    ],
) -> None:
    """Take a study that was moved as finished: compare files with checksums and its config, and
    make all of one age."""
    options.set_pools(1)
    from saeflow.describe import adoption
    from saeflow.kinds import read_any_study

    files = adoption.adopt(study, read_any_study(*config))
    options.say(f"{study}: {counted(files, 'file')} as written, by this config, and now of one age")


def plan(
    config: options.Configs,
    calibrate: Annotated[
        bool,
        typer.Option(
            help=(
                "Measure this machine for at most 20 seconds and tell how long the study would "
                "take."
            )
        ),
    ] = True,
) -> None:
    """Print what a study would run, stage by stage: its work, time, price and needs; runs nothing.
    Ends with 1 if something that it reads is not there."""
    from saeflow.kinds import plan_of, read_any_study
    from saeflow.planning.stages import total
    from saeflow.planning.work import missing

    study = read_any_study(*config)
    planned = plan_of(study, Path.cwd())
    options.say(f"{planned.heading}\n")
    hours = _hours(planned) if calibrate and planned.rate else {}
    options.say(
        f"{'stage':<13}{'jobs':>6}{planned.unit:>16}{'TFLOP':>12}{'time':>9}{'disk':>10}   work"
    )
    for stage in [*planned.stages, total(planned.stages)]:
        options.say(_row(stage, hours))
    for remark in planned.remarks:
        options.say(f"\n{remark}")
    absent = missing(planned.needs, Path("results", study.study))
    fetched = [need for need in planned.needs if need.present is None]
    for need in fetched:
        options.say(f"fetched once: {need.key}: {need.where}")
    for need in absent:
        options.say(f"missing: {need.said()}")
    if absent:
        raise typer.Exit(1)
    options.say(f"\neverything {'else that ' if fetched else ''}it reads is there")


def _hours(planned: Plan) -> dict[str, float]:
    """How long every stage takes on this machine."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    options.use_threads(cores)
    from saeflow.planning.calibration import SHARE
    from saeflow.planning.stages import hours, total

    assert planned.rate
    device = options.accelerator()
    rate = planned.rate(device)
    options.say(
        f"this machine: {rate / 1e9:,.0f} GFLOP/s in matrix products ({device}, "
        f"{counted(cores, 'core')})\n"
    )
    by_stage = {stage.stage: hours(stage, rate, SHARE, cores) for stage in planned.stages}
    return by_stage | {total(planned.stages).stage: sum(by_stage.values())}


def _row(stage: StagePlan, hours: dict[str, float]) -> str:
    work = f"{stage.flop / 1e12:,.1f}" if stage.flop else "–"
    time = _time(hours[stage.stage]) if stage.stage in hours else "–"
    count = f"{stage.tokens:,}" if stage.tokens else "–"
    left = f"{stage.stage:<13}{stage.jobs:>6}{count:>16}{work:>12}{time:>9}"
    return f"{left}{_size(stage.disk) if stage.disk else '–':>10}   {stage.work}"


def _time(hours: float) -> str:
    """Hours in the unit a person would choose."""
    for unit, size in (("d", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:.0f} {unit}"
    return f"{hours * 3600:.0f} s"


def _size(count: int) -> str:
    """Bytes in the unit a person would choose."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count //= 1000
    return f"{count} TB"
