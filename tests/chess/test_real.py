"""The embedded model on played games that it has not seen."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from checkout import ROOT

from saeflow.chess.games.examples import examples
from saeflow.chess.games.positions import pgn_positions
from saeflow.chess.games.settings import Games
from saeflow.chess.player.io import embedded_maia2, load_maia2
from saeflow.chess.player.metrics import measure_maia2, move_counts

DATA = Path(os.environ.get("SAEFLOW_TEST_DATA", ROOT.parent / "shared" / "data"))
MONTH = DATA / "lichess" / "lichess_db_standard_rated_2013-01.pgn.zst"


@pytest.mark.real
@pytest.mark.skipif(not MONTH.is_file(), reason=f"{MONTH} is absent")
def test_the_embedded_model_predicts_moves_of_played_games_better_than_frequencies():
    parts = islice(pgn_positions(MONTH, Games(games_per_chunk=500)), 1)
    table = pl.concat(part.positions for part in parts)
    seen = examples(table.filter(split="model"))
    held_out = examples(table.filter(split="eval")).part(slice(0, 600))
    measured = measure_maia2(load_maia2(embedded_maia2()), held_out, move_counts(seen), seed=0)
    own = measured.filter(pl.col("told") == pl.col("rating_bin"))
    mean = {
        name: np.average(own[name], weights=own["n"])
        for name in ("top1", "top1_frequent", "loss", "loss_uniform")
    }
    assert mean["top1"] > 2 * mean["top1_frequent"]
    assert mean["loss"] < mean["loss_uniform"] - 0.4
