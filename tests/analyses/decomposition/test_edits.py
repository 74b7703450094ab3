"""What a sum of few latents does in place of the organism's direction: what the direction does,
where the latents hold it."""

from __future__ import annotations

from functools import cache

import polars as pl
import pytest
import torch
from directed import BEHAVIOUR, MEASURES, Built, built, prompts
from torch.nn.functional import normalize

from saeflow.analyses.decomposition.edits import EDITS, edit_table, trials
from saeflow.analyses.decomposition.settings import SumEdits
from saeflow.analyses.directions import building
from saeflow.analyses.directions.interventions import measure
from saeflow.analyses.directions.placing import Placed
from saeflow.corpora.tales import story_blocks
from saeflow.pursuits.dictionary import Dictionary

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = SumEdits(latents=[1, 3], controls=2)
OWN = MEASURES.model_copy(update={"prompts": 16, "loss_blocks": 2})


def held_by(own: Built) -> tuple[Placed, Dictionary]:
    """The direction, and a decoder of which two rows add up to it."""
    vector = own.direction.vector.double()
    rows = normalize(torch.randn(61, len(vector), generator=torch.Generator().manual_seed(5)))
    across = normalize(rows[-1].double() - (rows[-1].double() @ vector) * vector, dim=0)
    both = torch.stack([vector + 0.5 * across, vector - 0.5 * across])
    decoder = torch.cat([rows[:-1], both.float()])
    placed = Placed(own.direction, own.direction.layer, vector, own.direction.gap / 2, None)
    return placed, Dictionary(decoder)


@cache
def table() -> pl.DataFrame:
    own = built("organism")
    placed, decoder = held_by(own)
    tried = trials(placed, decoder, SETTINGS, 0)
    tested = building.test_prompts(own.reading.prompts, own.reading.rows, prompts(), OWN.prompts)
    blocks = story_blocks(0, "eval", OWN.loss_blocks, 64).tokens
    measured = measure(own.lm, tried.trials, tested, "off", blocks, BEHAVIOUR, own.tokens, OWN)
    return edit_table(measured, tried.kinds, OWN, 0)


def value(edit: str, kind: str, label: str, latents: int | None = None) -> float:
    rows = table().filter(
        pl.col("latents").eq_missing(latents), edit=edit, kind=kind, label=label, measure="phrases"
    )
    return float(rows["value"].item())


def test_sums_that_hold_the_direction_do_what_it_does() -> None:
    assert dict(table().schema) == EDITS
    assert value("none", "whole", "on") > 0.8
    assert value("ablate", "whole", "on") == value("ablate", "sum", "on", 3) == 0
    assert value("add", "whole", "off") == value("add", "sum", "off", 3) > 0.8


def test_sums_for_random_directions_do_not() -> None:
    assert value("ablate", "random", "on", 3) > 0.8
    assert value("add", "random", "off", 3) < 0.2


def test_one_latent_of_two_does_less_than_both() -> None:
    kinds = table().filter(measure="log_odds", edit="add", label="off", kind="sum")
    few, more = (kinds.filter(latents=k)["value"].item() for k in (1, 3))
    assert few < more


def test_every_sum_is_as_long_as_the_direction() -> None:
    placed, decoder = held_by(built("organism"))
    tried = trials(placed, decoder, SETTINGS, 0)
    for trial in tried.trials[1:]:
        assert trial.intervention.vector.norm() == pytest.approx(1, abs=1e-5)
        assert trial.intervention.size == (placed.gap if trial.intervention.edit == "add" else 0.0)
    assert len(tried.trials) == 3 + 2 * 2 * (1 + 2)
