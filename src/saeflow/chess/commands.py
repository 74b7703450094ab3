"""``saeflow chess``: the commands of the wing, those of each folder beside what they run."""

from __future__ import annotations

import typer

from saeflow.chess.analyses.blunders import command as blunders
from saeflow.chess.analyses.concepts import command as concepts
from saeflow.chess.analyses.engine import command as engine
from saeflow.chess.analyses.examples import command as examples
from saeflow.chess.analyses.fine_tune import command as fine_tune
from saeflow.chess.analyses.interventions import command as interventions
from saeflow.chess.analyses.skill import command as skill
from saeflow.chess.analyses.transitions import command as transitions
from saeflow.chess.games import command as games
from saeflow.chess.player import command as player
from saeflow.chess.report import command as report
from saeflow.chess.saes import command as saes

app = typer.Typer(help="SAEs on a model of human chess.", no_args_is_help=True)
for group in (
    games, player, saes, examples, concepts, skill, interventions, transitions, engine,
    blunders, fine_tune, report,
):  # fmt: skip
    app.add_typer(group.app)
