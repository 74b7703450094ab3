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
    directions: chess_options.Directions,
    settings: options.Settings,
    seed: options.Seed,
    output: chess_options.Folder,
    engine: chess_options.Engine = None,
    split: chess_options.Split = "eval",
    tokens: chess_options.Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Change concepts' latents, or move along their directions, and measure what becomes of the
    model's moves, with controls."""
    options.use_device(threads)
    from saeflow.chess.analyses.concepts.io import load_directions, read_subject
    from saeflow.chess.analyses.interventions.interventions import INTERVENTIONS
    from saeflow.chess.analyses.interventions.interventions import intervene as change
    from saeflow.chess.analyses.interventions.points import SHIFTS, TRANSITIONS
    from saeflow.tables import write_table

    wanted = options.parsed(Interventions, settings)
    site = chess_options.open_site(model, hook, sae, tokens)
    fitted = load_directions(directions, hook)
    subject = read_subject(site, positions, split, labels, associations, engine, fitted)
    beat = options.progress("intervene, ratings")
    tables = change(site.model, site.sae, subject, wanted, seed, beat)
    write_table(output / "interventions.parquet", tables.interventions, INTERVENTIONS)
    write_table(output / "transitions.parquet", tables.transitions, TRANSITIONS)
    write_table(output / "shifts.parquet", tables.shifts, SHIFTS)
