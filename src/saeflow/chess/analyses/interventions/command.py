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
    from saeflow.chess.analyses.concepts.io import write_named
    from saeflow.chess.analyses.interventions.interventions import intervene as change

    wanted, here = (
        options.parsed(Interventions, settings),
        chess_options.open_site(model, hook, sae, tokens),
    )
    subject = chess_options.read_subject(here, positions, split, labels, associations, engine)
    beat = options.progress("intervene, ratings")
    write_named(output, "interventions", change(here.model, here.sae, subject, wanted, seed, beat))
