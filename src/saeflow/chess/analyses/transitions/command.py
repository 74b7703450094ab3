"""``saeflow chess transitions``: positions that are solved from some rating upwards."""

from __future__ import annotations

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.transitions.settings import Transitions

app = typer.Typer()


@app.command()
def transitions(
    model: options.ModelFolder,
    positions: chess_options.Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    engine: chess_options.Engine = None,
    split: chess_options.Split = "eval",
    threads: options.Threads = 1,
) -> None:
    """Find positions that the model solves from some rating upwards."""
    options.use_device(threads)
    from saeflow.chess.analyses.transitions.transitions import TRANSITIONS
    from saeflow.chess.analyses.transitions.transitions import transitions as find
    from saeflow.chess.games.boards import write_fens
    from saeflow.chess.games.io import best_moves, load_examples
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.saes.site import MaiaAtSite
    from saeflow.tables import write_table

    maia, examples = load_maia2(model, options.device()), load_examples(positions, split)
    best = best_moves(engine, write_fens(examples.boards)) if engine else None
    wanted = options.parsed(Transitions, settings)
    table = find(MaiaAtSite(maia, maia.hooks[-1]), examples, best, wanted, seed)
    write_table(output, table, TRANSITIONS)
