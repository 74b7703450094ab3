"""``saeflow chess provide``, ``train``, ``play``, ``measure``: the model of human play."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saeflow import options
from saeflow.artifacts import check_replaceable
from saeflow.chess import options as chess_options
from saeflow.chess.games.settings import SelfPlay
from saeflow.chess.player.settings import Accuracy, ChessModel, ChessPlayer, ChessTraining

if TYPE_CHECKING:
    from saeflow.chess.player.training import TrainedMaia2

Shape = Annotated[str, typer.Option(help="The model's shape, as JSON.")]


app = typer.Typer()


@app.command()
def train(
    positions: chess_options.Positions,
    shape: Shape,
    settings: options.Settings,
    seed: options.Seed,
    checkpoint: options.Checkpoint,
    output: options.Output,
    checksums: options.Checksums = None,
    threads: options.Threads = 1,
) -> None:
    """Train a model of human play on the split `model`; an interrupted run goes on where it
    stopped."""
    check_replaceable(output)
    options.use_device(threads)
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.player.training import train_maia2

    sections = options.parsed(ChessModel, shape), options.parsed(ChessTraining, settings)
    examples = load_examples(positions, "model")
    beat = options.progress("train chess model, steps")
    trained = train_maia2(*sections, examples, seed, checkpoint, beat, device=options.device())
    about = {"training": sections[1].model_dump(), "seed": seed, "positions": len(examples.moves)}
    save_trained(output, checksums, trained, about, checkpoint)


def save_trained(
    output: Path,
    checksums: Path | None,
    trained: TrainedMaia2,
    about: dict[str, Any],
    checkpoint: Path,
) -> None:
    """Write a model that was trained here, with what it was trained by; then the checkpoint is of
    no more use."""
    from saeflow.chess.player.io import save_maia2
    from saeflow.provenance import provenance

    save_maia2(output, trained.model, {**about, "provenance": provenance()}, trained.curve)
    options.repeat_checksums(output, checksums)
    checkpoint.unlink(missing_ok=True)


@app.command("play")
def play_itself(
    model: options.ModelFolder,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    threads: options.Threads = 1,
) -> None:
    """Let the model play against itself and write the positions."""
    options.use_device(threads)
    from saeflow.chess.games.positions import SCHEMA
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.player.self_play import play_games
    from saeflow.tables import write_table

    chosen, player = options.parsed(SelfPlay, settings), load_maia2(model, options.device())
    games = play_games(player, chosen, seed, options.progress("play games"))
    write_table(output, games, SCHEMA)


@app.command()
def provide(
    settings: options.Settings, output: options.Output, checksums: options.Checksums = None
) -> None:
    """Put a model into the study: the one that comes with saeflow, or an official checkpoint from
    disk or fetched."""
    import tempfile

    from saeflow.artifacts import atomic, sha256
    from saeflow.chess.player.io import (
        embedded_maia2,
        fetch_checkpoint,
        import_checkpoint,
        save_maia2,
    )

    chosen = options.parsed(ChessPlayer, settings)
    if chosen.embedded:
        with atomic(output) as temporary:
            shutil.copytree(embedded_maia2(), temporary)
        options.repeat_checksums(output, checksums)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(chosen.path or Path(folder, f"{chosen.official}.pt"))
        if chosen.official:
            fetch_checkpoint(chosen.official, checkpoint)
        model = import_checkpoint(checkpoint, chosen.shape)
        save_maia2(output, model, {"checkpoint": checkpoint.name, "sha256": sha256(checkpoint)})
    options.repeat_checksums(output, checksums)


@app.command()
def measure(
    model: options.ModelFolder,
    positions: chess_options.Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    threads: options.Threads = 1,
) -> None:
    """Measure how well the model predicts moves of the split `eval`, by rating bin, told the true
    bin or another."""
    options.use_device(threads)
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.player.metrics import METRICS_SCHEMA, balanced, measure_maia2, move_counts
    from saeflow.tables import write_table

    counts = move_counts(load_examples(positions, "model"))
    held_out = balanced(
        load_examples(positions, "eval"), options.parsed(Accuracy, settings).positions, seed
    )
    player, report = load_maia2(model, options.device()), options.progress("measure, positions")
    write_table(output, measure_maia2(player, held_out, counts, seed, report), METRICS_SCHEMA)


@app.command()
def predict(
    fen: Annotated[str, typer.Option(help="A position in Forsyth-Edwards notation, or `start`.")],
    rating: Annotated[
        list[int], typer.Option(help="Of the player to move, such as 1500; may be repeated.")
    ],
    opponent: Annotated[
        int | None, typer.Option(help="Rating of the other player; by default the same.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a model; by default the one inside saeflow.")
    ] = None,
    moves: Annotated[int, typer.Option(help="How many moves are told.", min=1)] = 5,
    output: Annotated[
        Path | None, typer.Option(help="A table of all legal moves: .parquet or .csv.")
    ] = None,
) -> None:
    """Tell what players of some ratings would play in a position."""
    options.use_device(1)
    from saeflow.chess.player.io import embedded_maia2, load_maia2
    from saeflow.chess.player.prediction import PREDICTIONS
    from saeflow.chess.player.prediction import predict as ask
    from saeflow.tables import write_table

    player = load_maia2(model or embedded_maia2(), options.device())
    table = ask(player, fen, rating, opponent)
    if output:
        write_table(output, table, PREDICTIONS)
    for each in rating:
        own = table.filter(rating=each)
        first = own.row(0, named=True)
        typer.echo(
            f"{each} (told {first['ratings']}) against {first['opponent']}: "
            f"expected score {first['score']:.2f}"
        )
        for row in own.head(moves).to_dicts():
            typer.echo(f"  {row['probability']:6.1%}  {row['san']:<7} {row['move']}")
