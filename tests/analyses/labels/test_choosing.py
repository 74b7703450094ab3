"""Which latents get labels, and what tokens say of them."""

from __future__ import annotations

import polars as pl
import pytest

from saeflow.analyses.labels.choosing import CHOSEN, choose_latents
from saeflow.analyses.labels.settings import LabelledLatents, TokenWording
from saeflow.analyses.labels.wording import LABELS, token_labels
from saeflow.errors import SaeflowError

ACTIVITY = pl.DataFrame(
    {
        "latent": range(50),
        "tokens": [number * 10 for number in range(50)],
        "density": [number / 100 for number in range(50)],
        "maximum": [1.0] * 50,
        "top_token": [None, *[f" word{number}" for number in range(1, 50)]],
        "top_token_share": [0.0, *[number / 50 for number in range(1, 50)]],
    }
)


def chosen(seed: int = 0, targets: tuple[int, ...] = (), **asked: object) -> pl.DataFrame:
    return choose_latents(ACTIVITY, LabelledLatents(**asked), targets, "main", seed)


def test_latents_are_listed_targeted_or_drawn_of_those_that_fire_often_enough() -> None:
    table = chosen(targets=(2, 3), listed=[3, 1], drawn=5, least=400)
    assert table.schema == CHOSEN
    why = dict(table.select("latent", "why").iter_rows())
    assert {latent: said for latent, said in why.items() if said != "drawn"} == {
        1: "listed",
        2: "target",
        3: "listed",
    }
    drawn = {latent for latent, said in why.items() if said == "drawn"}
    assert len(drawn) == 5
    assert drawn <= set(range(40, 50))


def test_a_draw_is_named_by_seed_and_sae_and_grows_no_further_than_there_are_latents() -> None:
    assert chosen(drawn=5, least=10).equals(chosen(drawn=5, least=10))
    assert not chosen(drawn=5, least=10).equals(chosen(seed=1, drawn=5, least=10))
    assert len(chosen(drawn=1000, least=1)) == 49


def test_a_latent_that_is_not_there_is_named() -> None:
    with pytest.raises(SaeflowError, match="50 is not below 50, the latents of 'main'"):
        chosen(listed=[50])
    with pytest.raises(SaeflowError, match="no latent of 'main' fires on 9999 tokens"):
        chosen(least=9999)


def test_a_label_of_tokens_names_what_is_promoted_and_what_it_mostly_fires_on() -> None:
    promoted = pl.DataFrame(
        {
            "latent": [3, 3, 3, 40, 40],
            "side": ["top", "top", "bottom", "top", "top"],
            "rank": [1, 0, 0, 0, 1],
            "token": [" sea", " ship", "not", "\n", 'a"b'],
        }
    )
    latents = pl.DataFrame({"latent": [0, 3, 40]}, schema={"latent": pl.Int32})
    activity = ACTIVITY.cast({"latent": pl.Int32})
    table = token_labels(latents, promoted, activity, TokenWording(frequent=0.5))
    assert table.schema == LABELS
    assert dict(table.select("latent", "text").iter_rows()) == {
        3: 'predicts "ship", "sea"',
        40: 'predicts "\\n", "a\\"b"; fires on "word40" (80% of its firings)',
    }
