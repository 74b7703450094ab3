"""``saeflow chess tune``, ``measure-tuning``: what the player learns from blunders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.fine_tune.settings import FineTuning
from saeflow.chess.player.command import save_trained
from saeflow.chess.player.settings import Accuracy

if TYPE_CHECKING:
    from saeflow.chess.analyses.fine_tune.lessons import Lessons
    from saeflow.chess.player.maia2 import Maia2

app = typer.Typer()
Blunders = Annotated[Path, typer.Option("--blunders", help="Table of blunders.")]


@app.command()
def tune(
    model: options.ModelFolder,
    positions: chess_options.Positions,
    blunders: Blunders,
    settings: options.Settings,
    seed: options.Seed,
    checkpoint: options.Checkpoint,
    output: options.Output,
    checksums: options.Checksums = None,
    threads: options.Threads = 1,
) -> None:
    """Train the model further on positions with blunders; an interrupted run goes on where it
    stopped."""
    options.use_device(threads)
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.player.training import HEADS, train_maia2

    wanted, start = options.parsed(FineTuning, settings), load_maia2(model)
    learned = _lessons(positions, blunders, wanted, seed, start).learned
    beat = options.progress("tune chess model, steps")
    parts = HEADS if wanted.parts == "heads" else ()
    trained = train_maia2(
        start.shape,
        wanted,
        learned,
        seed,
        checkpoint,
        beat,
        start.state_dict(),
        parts,
        device=options.device(),
    )
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

    from saeflow.chess.analyses.fine_tune.lessons import FINE_TUNING, without
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.player.metrics import balanced, measure_change
    from saeflow.tables import write_table

    before, after = (load_maia2(folder, options.device()) for folder in (model, tuned))
    divided = _lessons(positions, blunders, options.parsed(FineTuning, settings), seed, before)
    others = load_examples(positions, "eval")
    if "eval" in divided.games:
        others = without(others, divided.games["eval"])
    ordinary = balanced(others, options.parsed(Accuracy, accuracy).positions, seed)
    tables = [
        measure_change(before, after, part, seed).with_columns(set=pl.lit(name))
        for name, part in (("blunders", divided.held_out), ("ordinary", ordinary))
    ]
    write_table(output, pl.concat(tables), FINE_TUNING)


def _lessons(
    positions: Path, blunders: Path, settings: FineTuning, seed: int, model: Maia2
) -> Lessons:
    """What is learned from, and what is held out; ``model`` is the one before tuning."""
    from saeflow.chess.analyses.blunders.blunders import BLUNDERS
    from saeflow.chess.analyses.fine_tune.lessons import lessons, strongest_moves
    from saeflow.chess.games.io import load_examples
    from saeflow.tables import read_table

    table = read_table(blunders, BLUNDERS)
    splits = {split: load_examples(positions, split) for split in table["split"].unique().sort()}
    divided = lessons(table, splits, settings.held_out, seed)
    if settings.teach == "best":
        return divided
    return divided._replace(
        learned=strongest_moves(model, divided.learned),
        held_out=strongest_moves(model, divided.held_out),
    )
