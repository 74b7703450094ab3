"""``saeflow chess cache``, ``evaluate-sae``: activations over positions, and the SAEs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.player.settings import Accuracy
from saeflow.chess.saes.settings import ChessActivations
from saeflow.errors import SaeflowError

app = typer.Typer()


@app.command()
def cache(
    outputs: Annotated[
        list[Path], typer.Argument(help="The shard's file at every hook, in the hooks' order.")
    ],
    model: options.ModelFolder,
    positions: chess_options.Positions,
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
    from saeflow.activations.capture import capture_rows
    from saeflow.activations.io import write_shards
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.saes.source import board_source

    chosen = options.parsed(ChessActivations, settings)
    first = shard * chosen.positions_per_shard
    last = min(first + chosen.positions_per_shard, chosen.positions)
    examples = load_examples(positions, chosen.split)
    if (held := len(examples.moves)) < chosen.positions:
        raise SaeflowError(
            f"activations.positions: {chosen.positions} are asked for and the split "
            f"'{chosen.split}' has {held}; lower it or get more games"
        )
    stored = config.Activations(
        format=chosen.format,
        compress=chosen.compress,
        dtype=chosen.dtype,
        blocks_per_shard=chosen.positions_per_shard,
        exclude="nothing",
    )
    player = load_maia2(model, options.device())
    source = board_source(player, examples.part(slice(first, last)), chosen.tokens)
    rows = capture_rows(source, hooks, stored, first_block=first)
    write_shards(
        dict(zip(hooks, outputs, strict=True)), rows, stored, {"model": model.name, "shard": shard}
    )


@app.command("evaluate-sae")
def evaluate_sae(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    positions: chess_options.Positions,
    hook: Annotated[str, typer.Option(help="Where the SAE reads.")],
    tokens: Annotated[str, typer.Option(help="What it reads there: mean or all.")],
    settings: options.Settings,
    seed: options.Seed,
    metrics: options.Metrics,
    threads: options.Threads = 1,
) -> None:
    """Measure sparsity, reconstruction, and what it does to the choice of moves, on the split
    `eval`."""
    options.use_device(threads)
    from saeflow.artifacts import write_sealed_json
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.player.metrics import balanced
    from saeflow.chess.saes.evaluation import evaluate_on_boards
    from saeflow.provenance import provenance

    held_out = balanced(
        load_examples(positions, "eval"), options.parsed(Accuracy, settings).positions, seed
    )
    read: Literal["mean", "all"] = "all" if tokens == "all" else "mean"
    player = load_maia2(model, options.device())
    measured = evaluate_on_boards(player, options.open_sae(sae), hook, read, held_out)
    write_sealed_json(metrics, measured | {"provenance": provenance()})
