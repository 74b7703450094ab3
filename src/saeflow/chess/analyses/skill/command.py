"""``saeflow chess skill``: knowing and doing at every rating."""

from __future__ import annotations

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.skill.settings import Skill

app = typer.Typer()


@app.command()
def skill(
    model: options.ModelFolder,
    hook: chess_options.SiteName,
    sae: options.SAEFolder,
    positions: chess_options.Positions,
    labels: chess_options.LabelsFile,
    associations: chess_options.Associations,
    settings: options.Settings,
    seed: options.Seed,
    output: chess_options.Folder,
    engine: chess_options.Engine = None,
    split: chess_options.Split = "eval",
    tokens: chess_options.Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Measure what latents hold and what the model does at every rating it is told."""
    options.use_device(threads)
    from saeflow.chess.analyses.concepts.io import read_subject
    from saeflow.chess.analyses.skill.skill import AWARENESS, SKILL
    from saeflow.chess.analyses.skill.skill import skill as measure
    from saeflow.tables import write_table

    wanted = options.parsed(Skill, settings)
    site = chess_options.open_site(model, hook, sae, tokens)
    subject = read_subject(site, positions, split, labels, associations, engine)
    by_rating, by_concept = measure(site.model, site.sae, subject, wanted, seed)
    write_table(output / "skill.parquet", by_rating, SKILL)
    write_table(output / "awareness.parquet", by_concept, AWARENESS)
