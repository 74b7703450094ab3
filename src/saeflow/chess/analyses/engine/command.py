"""``saeflow chess evaluate``, ``blunders``, ``tune``: an engine's word on positions, and what the
player learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.engine.settings import Engine, FineTuning
from saeflow.chess.player.command import save_trained
from saeflow.chess.player.settings import Accuracy

if TYPE_CHECKING:
    from saeflow.chess.analyses.engine.blunders import Lessons

Blunders = Annotated[Path, typer.Option("--blunders", help="Table of blunders.")]


app = typer.Typer()


@app.command()
def evaluate(
    positions: chess_options.Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    part: Annotated[
        int, typer.Option(help="Which of the jobs: each evaluates engine.positions_per_job.", min=0)
    ] = 0,
) -> None:
    """Ask an engine for the best moves, and what the moves that were played lose."""
    options.set_pools(1)
    import numpy as np
    import polars as pl

    from saeflow.chess.analyses.engine.blunders import ENGINE
    from saeflow.chess.analyses.engine.engine import evaluate as ask
    from saeflow.chess.games.boards import write_fens
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.games.moves import MOVES
    from saeflow.seeds import numpy_generator
    from saeflow.tables import write_table

    wanted, beat = options.parsed(Engine, settings), options.progress("evaluate, positions")
    examples = load_examples(positions, wanted.split)
    drawn = numpy_generator(seed, "chess evaluations").permutation(len(examples.games))[
        : wanted.positions
    ]
    rows = np.sort(drawn)[part * wanted.positions_per_job :][: wanted.positions_per_job]
    here = examples.part(rows)
    said = ask(write_fens(here.boards), [MOVES[move] for move in here.moves], wanted, beat)
    table = said.with_columns(split=pl.lit(wanted.split), row=pl.Series(rows))
    write_table(output, table, ENGINE)


@app.command("gather-evaluations")
def gather_evaluations(
    parts: Annotated[
        list[Path], typer.Argument(help="Tables of `saeflow chess evaluate`, in order.")
    ],
    output: options.Output,
) -> None:
    """Put the tables of several jobs together."""
    options.set_pools(1)
    import polars as pl

    from saeflow.chess.analyses.engine.blunders import ENGINE
    from saeflow.tables import read_table, write_table

    write_table(output, pl.concat([read_table(part, ENGINE) for part in parts]), ENGINE)


@app.command()
def blunders(
    evaluations: Annotated[
        Path, typer.Option(help="What an engine says of the moves that were played.")
    ],
    transitions: Annotated[
        Path, typer.Option(help="Table of transition points, of the split `eval`.")
    ],
    settings: options.Settings,
    output: options.Output,
) -> None:
    """Find the blunders: of the moves that were played, and of the weakest rating's where a
    stronger one is right."""
    options.set_pools(1)
    import polars as pl

    from saeflow.chess.analyses.engine.blunders import BLUNDERS, ENGINE, blunder_set
    from saeflow.chess.analyses.engine.engine import evaluate as ask
    from saeflow.chess.analyses.transitions.transitions import TRANSITIONS
    from saeflow.tables import read_table, write_table

    wanted, beat = options.parsed(Engine, settings), options.progress("evaluate, positions")
    played = read_table(evaluations, ENGINE)
    solved = read_table(transitions, TRANSITIONS).filter(pl.col("kind") == "transition")
    said = ask(solved["fen"].to_list(), solved["weakest_choice"].to_list(), wanted, beat)
    chosen = said.with_columns(solved["row"], split=pl.lit("eval"))
    write_table(output, blunder_set(played, chosen, wanted.blunder), BLUNDERS)


@app.command()
def tune(
    model: options.ModelFolder,
    positions: chess_options.Positions,
    blunders: Blunders,
    settings: options.Settings,
    seed: options.Seed,
    checkpoint: Annotated[Path, typer.Option(help="Where the state of an unfinished run is kept.")],
    output: options.Output,
    checksums: options.Checksums = None,
    threads: options.Threads = 1,
) -> None:
    """Train the model further on positions with blunders; an interrupted run goes on where it
    stopped."""
    options.use_device(threads)
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.player.training import train_maia2

    wanted, start = options.parsed(FineTuning, settings), load_maia2(model)
    learned = _lessons(positions, blunders, wanted, seed).learned
    beat = options.progress("tune chess model, steps")
    trained = train_maia2(start.shape, wanted, learned, seed, checkpoint, beat, start.state_dict())
    about = {
        "tuned": model.name,
        "training": wanted.model_dump(),
        "seed": seed,
        "positions": len(learned.moves),
    }
    save_trained(output, checksums, trained, about, checkpoint)


@app.command("measure-tuning")
def measure_tuning(
    model: options.ModelFolder,
    tuned: Annotated[Path, typer.Option(help="Folder of the model after further training.")],
    positions: chess_options.Positions,
    blunders: Blunders,
    settings: options.Settings,
    accuracy: Annotated[str, typer.Option(help="The section `accuracy`, as JSON.")],
    seed: options.Seed,
    output: options.Output,
    threads: options.Threads = 1,
) -> None:
    """Measure the model before and after on blunders that were held out, and on ordinary positions
    of other games."""
    options.use_device(threads)
    import polars as pl

    from saeflow.chess.analyses.engine.blunders import FINE_TUNING, without
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.player.metrics import balanced, measure_change
    from saeflow.tables import write_table

    divided = _lessons(positions, blunders, options.parsed(FineTuning, settings), seed)
    others = load_examples(positions, "eval")
    if "eval" in divided.games:
        others = without(others, divided.games["eval"])
    ordinary = balanced(others, options.parsed(Accuracy, accuracy).positions, seed)
    before, after = load_maia2(model), load_maia2(tuned)
    tables = [
        measure_change(before, after, part, seed).with_columns(set=pl.lit(name))
        for name, part in (("blunders", divided.held_out), ("ordinary", ordinary))
    ]
    write_table(output, pl.concat(tables), FINE_TUNING)


def _lessons(positions: Path, blunders: Path, settings: FineTuning, seed: int) -> Lessons:
    """What is learned from, and what is held out."""
    from saeflow.chess.analyses.engine.blunders import BLUNDERS, lessons
    from saeflow.chess.games.io import load_examples
    from saeflow.tables import read_table

    table = read_table(blunders, BLUNDERS)
    splits = {split: load_examples(positions, split) for split in table["split"].unique().sort()}
    return lessons(table, splits, settings.held_out, seed)
