"""``saeflow chess``: games to positions, and the model of human play."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow.cli import options
from saeflow.config.sections.chess import ChessModel, ChessTraining, Games

app = typer.Typer(help="SAEs on a model of human chess.", no_args_is_help=True)

Positions = Annotated[Path, typer.Option(help="Table of positions.")]
Shape = Annotated[str, typer.Option(help="The model's shape, as JSON.")]


@app.command()
def read(
    games: Annotated[Path, typer.Option(help="A PGN file: .pgn, .zst, .gz or .bz2.")],
    settings: options.Settings,
    output: options.Output,
    counts: Annotated[Path, typer.Option(help="Where it is told what became of the games.")],
    threads: options.Threads = 1,
) -> None:
    """Turn played games into a table of positions; malformed games are counted, told and left out."""
    options.set_pools(1)
    import sys

    from saeflow.artifacts import write_json
    from saeflow.corpora.chess.io import write_positions
    from saeflow.corpora.chess.positions import pgn_positions

    parts = pgn_positions(games, options.parsed(Games, settings), threads)
    report = options.progress("read games")
    found = write_positions(output, parts, lambda count: report(count, count + 1))
    write_json(counts, found)
    told = ", ".join(f"{count:,} {reason}" for reason, count in found["games"].items())
    print(f"{found['positions']:,} positions of games: {told}", file=sys.stderr)


@app.command()
def train(
    positions: Positions,
    shape: Shape,
    settings: options.Settings,
    seed: options.Seed,
    checkpoint: Annotated[Path, typer.Option(help="Where the state of an unfinished run is kept.")],
    output: options.Output,
    threads: options.Threads = 1,
) -> None:
    """Train a model of human play on the split `model`; an interrupted run goes on where it stopped."""
    options.use_threads(threads)
    from saeflow.artifacts import provenance
    from saeflow.corpora.chess.io import load_examples
    from saeflow.models.maia2_io import save_maia2
    from saeflow.models.maia2_training import train_maia2

    sections = options.parsed(ChessModel, shape), options.parsed(ChessTraining, settings)
    examples = load_examples(positions, "model")
    trained = train_maia2(*sections, examples, seed, checkpoint, options.progress("train chess model, steps"))
    about = {
        "training": sections[1].model_dump(),
        "seed": seed,
        "positions": len(examples.moves),
        "provenance": provenance(),
    }
    save_maia2(output, trained.model, about, trained.curve)
    checkpoint.unlink(missing_ok=True)
