"""``saeflow chess``: games to positions, and the model of human play."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saeflow import options
from saeflow.artifacts import check_replaceable
from saeflow.config.sections.chess import (
    Accuracy,
    ChessActivations,
    ChessModel,
    ChessPlayer,
    ChessTraining,
    Games,
    SelfPlay,
)
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.models.maia2_training import TrainedMaia2

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
    """Turn played games into a table of positions; malformed games are counted, told and left
    out."""
    options.set_pools(1)

    from saeflow.artifacts import write_sealed_json
    from saeflow.corpora.chess.io import write_positions
    from saeflow.corpora.chess.positions import pgn_positions

    parts = pgn_positions(games, options.parsed(Games, settings), threads)
    report = options.progress("read games")
    found = write_positions(output, parts, lambda count: report(count, count + 1))
    write_sealed_json(counts, found)
    told = ", ".join(f"{count:,} {reason}" for reason, count in found["games"].items())
    options.say(f"{found['positions']:,} positions of games: {told}", err=True)


@app.command()
def train(
    positions: Positions,
    shape: Shape,
    settings: options.Settings,
    seed: options.Seed,
    checkpoint: Annotated[Path, typer.Option(help="Where the state of an unfinished run is kept.")],
    output: options.Output,
    checksums: options.Checksums = None,
    threads: options.Threads = 1,
) -> None:
    """Train a model of human play on the split `model`; an interrupted run goes on where it
    stopped."""
    check_replaceable(output)
    options.use_device(threads)
    from saeflow.corpora.chess.io import load_examples
    from saeflow.models.maia2_training import train_maia2

    sections = options.parsed(ChessModel, shape), options.parsed(ChessTraining, settings)
    examples = load_examples(positions, "model")
    trained = train_maia2(
        *sections, examples, seed, checkpoint, options.progress("train chess model, steps")
    )
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
    from saeflow.artifacts import provenance
    from saeflow.models.maia2_io import save_maia2

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
    from saeflow.corpora.chess.positions import SCHEMA
    from saeflow.models.maia2_io import load_maia2
    from saeflow.models.self_play import play_games
    from saeflow.tables import write_table

    chosen = options.parsed(SelfPlay, settings)
    write_table(
        output, play_games(load_maia2(model), chosen, seed, options.progress("play games")), SCHEMA
    )


@app.command()
def provide(
    settings: options.Settings, output: options.Output, checksums: options.Checksums = None
) -> None:
    """Put a model into the study: the one that comes with saeflow, or an official checkpoint from
    disk or fetched."""
    import tempfile

    from saeflow.artifacts import atomic, sha256
    from saeflow.models.maia2_io import (
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
    positions: Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    threads: options.Threads = 1,
) -> None:
    """Measure how well the model predicts moves of the split `eval`, by rating bin, told the true
    bin or another."""
    options.use_device(threads)
    from saeflow.corpora.chess.io import load_examples
    from saeflow.models.maia2_io import load_maia2
    from saeflow.models.maia2_metrics import METRICS_SCHEMA, balanced, measure_maia2, move_counts
    from saeflow.tables import write_table

    counts = move_counts(load_examples(positions, "model"))
    held_out = balanced(
        load_examples(positions, "eval"), options.parsed(Accuracy, settings).positions, seed
    )
    report = options.progress("measure chess model, positions")
    write_table(
        output, measure_maia2(load_maia2(model), held_out, counts, seed, report), METRICS_SCHEMA
    )


@app.command()
def cache(
    outputs: Annotated[
        list[Path], typer.Argument(help="The shard's file at every hook, in the hooks' order.")
    ],
    model: options.ModelFolder,
    positions: Positions,
    hooks: Annotated[
        list[str], typer.Option("--hook", help="blocks.1.resid_post; may be given several times.")
    ],
    settings: options.Settings,
    shard: Annotated[int, typer.Option(help="Which shard.")],
    threads: options.Threads = 1,
) -> None:
    """Write one shard of activations per hook over positions, from the same forward passes."""
    options.use_device(threads)
    from saeflow import config
    from saeflow.activations.boards import board_source
    from saeflow.activations.capture import capture_rows
    from saeflow.activations.io import write_shards
    from saeflow.corpora.chess.io import load_examples
    from saeflow.models.maia2_io import load_maia2

    chosen = options.parsed(ChessActivations, settings)
    first = shard * chosen.positions_per_shard
    last = min(first + chosen.positions_per_shard, chosen.positions)
    examples = load_examples(positions, chosen.split)
    if (held := len(examples.moves)) < chosen.positions:
        raise SaeflowError(
            f"activations.positions: {chosen.positions} are asked for and the split "
            f"'{chosen.split}' has {held}; "
            "lower it or get more games"
        )
    stored = config.Activations(
        format=chosen.format,
        compress=chosen.compress,
        dtype=chosen.dtype,
        blocks_per_shard=chosen.positions_per_shard,
        exclude="nothing",
    )
    source = board_source(load_maia2(model), examples.part(slice(first, last)), chosen.tokens)
    rows = capture_rows(source, hooks, stored, first_block=first)
    write_shards(
        dict(zip(hooks, outputs, strict=True)), rows, stored, {"model": model.name, "shard": shard}
    )


@app.command("evaluate-sae")
def evaluate_sae(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    positions: Positions,
    hook: Annotated[str, typer.Option(help="Where the SAE reads.")],
    tokens: Annotated[str, typer.Option(help="What it reads there: mean or all.")],
    settings: options.Settings,
    seed: options.Seed,
    metrics: Annotated[Path, typer.Option(help="Where metrics.json is written.")],
    threads: options.Threads = 1,
) -> None:
    """Measure sparsity, reconstruction, and what it does to the choice of moves, on the split
    `eval`."""
    options.use_device(threads)
    from saeflow.artifacts import provenance, write_sealed_json
    from saeflow.corpora.chess.io import load_examples
    from saeflow.models.maia2_io import load_maia2
    from saeflow.models.maia2_metrics import balanced
    from saeflow.saes.board_evaluation import evaluate_on_boards

    held_out = balanced(
        load_examples(positions, "eval"), options.parsed(Accuracy, settings).positions, seed
    )
    read: Literal["mean", "all"] = "all" if tokens == "all" else "mean"
    found = evaluate_on_boards(load_maia2(model), options.open_sae(sae), hook, read, held_out)
    write_sealed_json(metrics, found | {"provenance": provenance()})
