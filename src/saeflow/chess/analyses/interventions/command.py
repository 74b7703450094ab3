"""``saeflow chess intervene``: changes of latents while the model chooses its move."""

from __future__ import annotations

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.interventions.settings import Interventions

app = typer.Typer()


@app.command()
def intervene(
    model: options.ModelFolder,
    hook: chess_options.SiteName,
    sae: options.SAEFolder,
    positions: chess_options.Positions,
    labels: chess_options.LabelsFile,
    associations: chess_options.Associations,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    engine: chess_options.Engine = None,
    split: chess_options.Split = "eval",
    tokens: chess_options.Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Change concepts' latents and measure what becomes of the model's moves, with controls."""
    options.use_device(threads)
    from saeflow.chess.analyses.concepts.io import read_subject
    from saeflow.chess.analyses.interventions.interventions import INTERVENTIONS
    from saeflow.chess.analyses.interventions.interventions import intervene as change
    from saeflow.tables import write_table

    wanted = options.parsed(Interventions, settings)
    site = chess_options.open_site(model, hook, sae, tokens)
    subject = read_subject(site, positions, split, labels, associations, engine)
    beat = options.progress("intervene, ratings")
    table = change(site.model, site.sae, subject, wanted, seed, beat)
    write_table(output, table, INTERVENTIONS)
