"""``saeflow chess read``: games to positions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.chess.games.settings import Games

app = typer.Typer()


@app.command()
def read(
    games: Annotated[
        list[Path], typer.Option(help="A PGN file: .pgn, .zst, .gz, .bz2 or .xz; may be repeated.")
    ],
    settings: options.Settings,
    output: options.Output,
    counts: Annotated[Path, typer.Option(help="Where it is told what became of the games.")],
    test: Annotated[
        list[Path] | None,
        typer.Option(help="A file whose games, and no others, are the split `eval`; repeatable."),
    ] = None,
    threads: options.Threads = 1,
) -> None:
    """Turn played games into a table of positions; malformed games are counted, told and left
    out."""
    options.set_pools(1)

    from saeflow.artifacts import write_sealed_json
    from saeflow.chess.games.io import write_positions
    from saeflow.chess.games.positions import pgn_positions

    parts = pgn_positions(games, options.parsed(Games, settings), threads, test or ())
    beat = options.progress("read games")
    counted = write_positions(output, parts, lambda count: beat(count, count + 1))
    write_sealed_json(counts, counted)
    fates = ", ".join(f"{count:,} {reason}" for reason, count in counted["games"].items())
    options.say(f"{counted['positions']:,} positions of games: {fates}", err=True)
    for fault in counted["faults"]:
        options.say(fault, err=True)
