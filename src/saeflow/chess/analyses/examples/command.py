"""``saeflow chess examples``: positions in which latents are active."""

from __future__ import annotations

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.examples.settings import Examples

app = typer.Typer()


@app.command()
def examples(
    model: options.ModelFolder,
    hook: chess_options.SiteName,
    sae: options.SAEFolder,
    positions: chess_options.Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: chess_options.Folder,
    split: chess_options.Split = "eval",
    tokens: chess_options.Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Keep the positions in which every latent is active, how strongly, and with which pieces."""
    options.use_device(threads)
    from saeflow.chess.analyses.examples.boards import TABLES, active_positions
    from saeflow.chess.games.examples import drawn
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.saes.reading import read_site
    from saeflow.tables import write_table

    wanted = options.parsed(Examples, settings)
    site = chess_options.open_site(model, hook, sae, tokens)
    every = load_examples(positions, split)
    studied = every.part(drawn(every.games, wanted.positions, seed))
    beat = options.progress("read the site, positions")
    ratings = studied.rating_self.astype("int64")
    latents = read_site(site.model, site.sae, studied.boards, ratings, beat).latents
    tables = active_positions(latents, studied, wanted, seed)
    for (name, schema), table in zip(TABLES.items(), tables, strict=True):
        write_table(output / f"{name}.parquet", table, schema)
