"""Puts the commands together; a user's mistake ends in one sentence, not in a traceback."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import saeflow
from saeflow import jobs, options, provenance, starting
from saeflow.analyses import ANALYSES
from saeflow.analyses.steering.steer_command import steer
from saeflow.chess import commands as chess
from saeflow.cli import (
    activations,
    corpus,
    fetch,
    figures,
    judging,
    models,
    publish,
    report,
    saes,
    show,
    study,
)
from saeflow.cli.clearing import cleared
from saeflow.cli.fires import fires
from saeflow.errors import DamagedError, SaeflowError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        options.say(saeflow.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    """From a language model to figures through sparse autoencoders. The workflow calls these
    commands; so can you."""


app.add_typer(study.app, name="study")
app.add_typer(fetch.app, name="fetch")
app.add_typer(corpus.app, name="corpus")
app.add_typer(models.app, name="model")
app.add_typer(activations.app, name="activations")
app.add_typer(saes.app, name="sae")
for analysis in ANALYSES:
    app.add_typer(analysis.declared("command", "app"), name=analysis.key)
app.add_typer(judging.app, name="judge")
app.add_typer(figures.app, name="figures")
app.add_typer(report.app, name="report")
app.add_typer(chess.app, name="chess")
app.command("plan")(study.plan)
app.command("publish")(publish.publish)
app.command("diff")(study.diff)
app.command("verify")(study.verify)
app.command("adopt")(study.adopt)
app.command("show")(show.show)
app.command("steer")(steer)
app.command("fires")(fires)


def run() -> None:
    """Run the command line in a process of its own."""
    starting.spare_imports()
    main(jobs.process_start())


def main(begun: float | None = None) -> None:
    """Run the command line.

    Args:
        begun: when the job began, in seconds since the epoch; by default now.
    """
    try:
        sys.argv[1:] = options.with_files_read(sys.argv[1:])
        provenance.forget()
        with jobs.job(begun):
            app()
    except DamagedError as error:
        _complain(cleared(error))
        sys.exit(1)
    except SaeflowError as error:
        _complain(str(error))
        sys.exit(1)
    except OSError as error:
        # A folder in the place of a file, a link in a circle, a file that may not be read: what
        # lies there is the user's, and the reader's lines would not help.
        if error.filename is None:
            raise
        _complain(f"{error.filename}: cannot be used ({error.strerror}); see what lies there")
        sys.exit(1)


def _complain(text: str) -> None:
    """Print what is wrong; each line of several says whose it is, so that a log can be searched."""
    options.say("\n".join(f"saeflow: {line}" for line in text.splitlines()), err=True)


if __name__ == "__main__":
    run()
