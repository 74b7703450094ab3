"""``saeflow activations``: the cache of activations, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config
from saeflow.cli import options

app = typer.Typer(help="Cache activations.", no_args_is_help=True)
BLOCKS_PER_PASS = 64


@app.command()
def cache(
    model: options.ModelFolder,
    corpus: options.Corpus,
    hook: options.HookName,
    settings: options.Settings,
    shard: Annotated[int, typer.Option(help="Which shard.")],
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Write one shard: the activations of a fixed number of token blocks."""
    options.use_threads(threads)
    from saeflow.activations.capture import capture_shard
    from saeflow.activations.io import write_shard
    from saeflow.corpora.io import load_blocks

    chosen = options.parsed(config.Activations, settings)
    lm = options.open_model(model, dtype)
    rows = capture_shard(lm, load_blocks(corpus), shard, hook, chosen, BLOCKS_PER_PASS)
    write_shard(output, rows, chosen, {"hook": hook, "model": model.name, "shard": str(shard)})


@app.command()
def gather(
    shards: Annotated[list[Path], typer.Argument(help="Every shard, in order.")],
    output: options.Output,
) -> None:
    """Write manifest.json: checksums, counts, mean and mean norm of all shards."""
    from saeflow.activations.io import write_manifest

    write_manifest(output.parent, shards)
