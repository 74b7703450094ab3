"""``saeflow study`` and ``saeflow plan``: what is run, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow.cli import options

if TYPE_CHECKING:
    from saeflow.config.plan import StagePlan

app = typer.Typer(help="Record what a study runs.", no_args_is_help=True)


@app.callback()
def stage() -> None:
    """Record what a study runs."""


@app.command()
def record(
    study: options.Settings,
    config: Annotated[Path, typer.Option(help="Where the full config is written.")],
    provenance: Annotated[Path, typer.Option(help="Where versions, commit and machine are written.")],
) -> None:
    """Write the config with every default filled in, and what it is run with."""
    import yaml

    from saeflow.artifacts import atomic, write_json
    from saeflow.artifacts import provenance as versions
    from saeflow.config import Study

    values = options.parsed(Study, study)
    with atomic(config) as temporary:
        temporary.write_text(yaml.safe_dump(values.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    write_json(provenance, versions())


def plan(
    config: Annotated[list[Path], typer.Argument(help="Config files, later ones over earlier ones.")],
) -> None:
    """Print what a study would run, stage by stage, and what it needs; runs nothing."""
    from saeflow.config import read_study
    from saeflow.config.plan import needs, plan_study, total

    study = read_study(*config)
    typer.echo(f"study {study.study}: {study.model.name}, {study.hook}, {len(study.goals.names)} goals\n")
    typer.echo(f"{'stage':<13}{'jobs':>6}{'tokens':>16}{'disk':>11}   work")
    stages = plan_study(study)
    for stage in stages:
        typer.echo(_row(stage))
    typer.echo(_row(total(stages)))
    missing = [need for need in needs(study, Path.cwd()) if need.present is False]
    for need in missing:
        typer.echo(f"missing: {need.what}: {need.where}")
    if not missing:
        typer.echo("\neverything it reads is there")


def _row(stage: StagePlan) -> str:
    return f"{stage.stage:<13}{stage.jobs:>6}{stage.tokens:>16,}{_size(stage.disk):>11}   {stage.work}"


def _size(count: int) -> str:
    """Bytes in the unit a person would choose."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count //= 1000
    return f"{count} TB"
