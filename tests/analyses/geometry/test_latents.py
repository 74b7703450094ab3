"""Latents that stand for words: found by their contexts, held against the words' circle, followed to
wider SAEs, and read off along a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_circle import NULLS, POINTS, RING
from planted_latents import LATENTS, WORDS, planted_latent_tables, planted_saes
from scipy import sparse, stats

from saeflow.analyses.examples.entries import Firings, Rows
from saeflow.analyses.examples.windows import CONTEXTS
from saeflow.analyses.geometry.circle import circle_of
from saeflow.analyses.geometry.latent_groups import (
    WordSet,
    firing_texts,
    members,
    number_of,
    shortage,
    word_set,
)
from saeflow.analyses.geometry.latent_points import DECODER, REBUILT, circles, decoder_points
from saeflow.analyses.geometry.latent_tables import Asked, latent_tables
from saeflow.analyses.geometry.periods import dated, halves, order_along, places
from saeflow.analyses.geometry.settings import WORDS as BUILT_IN
from saeflow.analyses.geometry.settings import LatentGroup, Latents, Nulls, Points
from saeflow.analyses.geometry.splitting import by_decoder, by_firing
from saeflow.config import TokenSet
from saeflow.errors import SaeflowError

DAYS = BUILT_IN["weekdays"]
OF_DAYS = WordSet(TokenSet(words=list(DAYS)), DAYS, "token")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    return planted_latent_tables(tmp_path_factory.mktemp("latents"))


def fired(*words: tuple[int, list[str]]) -> pl.DataFrame:
    rows = [(latent, text) for latent, texts in words for text in texts]
    return pl.DataFrame(rows, schema={"latent": pl.Int32, "text": pl.String}, orient="row")


def test_latents_are_of_a_set_by_the_share_of_their_contexts_that_fire_on_it() -> None:
    texts = fired(
        (0, [" Monday"] * 9 + [" the"]),  # specific
        (1, [f" {day}" for day in DAYS] + [" Monday"]),  # general
        (2, [" Monday"] * 7 + [" the"] * 3),  # too few
        (3, [" Monday"] * 4),  # too few contexts
        (4, ["Monday"] * 4 + [" MONDAY"] * 6),  # as the set writes it, and otherwise
    )
    table = members("day", "main", OF_DAYS, texts, Latents(), None)
    assert table["latent"].to_list() == [0, 1]
    assert table["kind"].to_list() == ["specific", "general"]
    assert table["word"].to_list() == ["Monday", "Monday"]
    assert table["share"].to_list() == [0.9, 1.0]
    assert table["word_share"].to_list() == [0.9, 0.25]
    given = members("day", "main", OF_DAYS, texts, Latents(), [3, 0, 9])
    assert given["latent"].to_list() == [0, 3, 9]
    assert given["how"].unique().to_list() == ["given"]
    assert given["share"].to_list() == [0.9, 1.0, None]


def test_two_members_are_told_in_one_sentence_and_nothing_is_made_of_them(
    tables: dict[str, pl.DataFrame],
) -> None:
    texts = fired((0, [" Monday"] * 6), (1, [" Friday"] * 6))
    table = members("day", "main", OF_DAYS, texts, Latents(), None)
    assert len(table) == 2
    sentence = shortage(table, "day", "main", Latents())
    assert sentence == (
        "day: 2 latents of main fire on the set in 0.8 of 5 contexts or more, and 3 are the least; "
        "lower geometry.latents.share, or take a wider SAE"
    )
    given = members("day", "main", OF_DAYS, texts, Latents(), [0, 1])
    assert "2 latents of main are given, and 3 are the least" in str(
        shortage(given, "day", "main", Latents())
    )
    pair = tables["latent_groups"].filter(group="pair", sae="wide").row(0, named=True)
    assert pair["latents"] == 2
    assert "2 latents of wide fire on the set" in pair["left_out"]
    assert "pair" not in tables["latent_circles"]["group"]


def test_a_latent_that_its_sae_lacks_is_refused(tmp_path: Path) -> None:
    asked = LATENTS.model_dump()
    asked["groups"]["pair"]["latents"] = {"wide": [0, 1, 13]}
    whole = Asked(POINTS, type(LATENTS).model_validate(asked), NULLS, {}, 0)
    saes = planted_saes(tmp_path)
    message = r"groups\.pair\.latents\.wide: 13 is none of 13 latents, 0 to 12; correct it"
    with pytest.raises(SaeflowError, match=message):
        latent_tables(None, saes[:1], whole)  # type: ignore[arg-type]


def test_a_word_of_several_tokens_is_looked_up_whole() -> None:
    tokens = {1: " ", 2: "1", 3: "9", 4: "4", 5: "5", 6: " in", 7: ",", 8: " cat", 9: "fish"}
    rows = [
        (0, "top", 0, 1.0, 0, 4, 3, [6, 1, 2, 3, 4, 5, 7], [0.0] * 7),  # the 9 of 1945
        (0, "top", 1, 1.0, 1, 4, 1, [6, 8, 9, 6], [0.0] * 4),  # cat of catfish
        (0, "top", 2, 1.0, 2, 4, 1, [8, 7, 6], [0.0] * 3),
        (0, "q1", 0, 1.0, 3, 4, 0, [8], [0.0]),  # not among the strongest
    ]
    contexts = pl.DataFrame(rows, schema=CONTEXTS, orient="row")
    assert firing_texts(contexts, tokens, "word")["text"].to_list() == [" 1945", " catfish", ","]
    assert firing_texts(contexts, tokens, "token")["text"].to_list() == ["9", " cat", ","]


@pytest.mark.parametrize(
    ("word", "number"), [("1945", 1945), (" 1980s", 1980), ("Monday", None), (None, None)]
)
def test_the_number_of_a_word_is_what_it_says(word: str | None, number: float | None) -> None:
    assert number_of(word) == number


def test_sets_are_built_in_or_of_words_patterns_and_files() -> None:
    points = Points.model_validate({"groups": {"day": {"kind": "weekdays"}}})
    sets = {"sea": TokenSet(words=["wave"])}
    assert word_set("day", LatentGroup(), points, sets).order == list(DAYS)
    assert word_set("x", LatentGroup(kind="months"), points, sets).order == BUILT_IN["months"]
    assert not word_set("x", LatentGroup(kind="years"), points, sets).order
    assert word_set("x", LatentGroup(token_set="sea"), points, sets).described == sets["sea"]
    years = word_set("x", LatentGroup(kind="years", unit="word"), points, sets)
    texts = fired((0, [" 1945", " 2001", "1066"] * 2), (1, [" 945", " 19455", " 1945s"] * 2))
    assert members("x", "main", years, texts, Latents(), None)["latent"].to_list() == [0]
    with pytest.raises(SaeflowError, match=r"token_set: no file .* has the set 'land' but sea"):
        word_set("x", LatentGroup(token_set="land"), points, sets)


def planted_rows(nuisance: float = 1.0) -> np.ndarray:
    """Decoder rows of seven days in a circle, beside a nuisance of larger variance."""
    draw = np.random.default_rng(0)
    axes = np.linalg.qr(draw.standard_normal((40, 4)))[0].T
    around = circle_of(7) * 7**0.5
    other = draw.standard_normal(7)
    other -= other.mean() + around @ (around.T @ other) * 2 / 7
    return 4 * axes[3] + 0.4 * around @ axes[:2] + np.outer(nuisance * other, axes[2])


def of_days(words: list[str]) -> pl.DataFrame:
    texts = fired(*((i, [f" {word}"] * 6) for i, word in enumerate(words)))
    return members("day", "main", OF_DAYS, texts, Latents(), None)


def test_decoder_rows_of_specific_latents_lie_in_a_planted_circle_also_where_a_word_has_two() -> (
    None
):
    rows, words = planted_rows(), [*DAYS, "Tuesday"]
    doubled = np.vstack([rows, rows[1]])
    nulls = Nulls(word_orders=199)
    key = ("day", "main", "hook")
    drawn = circles(key, DAYS, of_days(words), doubled, None, nulls, 0)
    row = dict(zip(["r2", "null", "p"], [drawn.circles[0][i] for i in (6, 9, 10)], strict=True))
    assert drawn.circles[0][3:6] == (DECODER, 7, 8)
    assert row["r2"] > 0.95 > row["null"]
    assert row["p"] == pytest.approx(14 / 5040)
    assert [place[4] for place in drawn.places] == list(DAYS)
    kept = [0, 1, 2, 4, 6]
    points, present = decoder_points(planted_rows(0.0)[kept], [DAYS[i] for i in kept], DAYS)
    assert present.tolist() == kept
    partial = circles(key, DAYS, of_days([DAYS[i] for i in present]), points, None, nulls, 0)
    assert partial.circles[0][4] == 5
    assert partial.circles[0][6] > 0.99  # in a circle from which two days are missing
    few = circles(key, DAYS, of_days(list(DAYS[:4])), rows[:4], None, nulls, 0)
    assert few.circles[0][6] is None
    assert "4 words have latents of their own in main" in str(few.circles[0][-1])


def test_the_latents_of_the_group_alone_rebuild_the_planted_circle(
    tables: dict[str, pl.DataFrame],
) -> None:
    rows = tables["latents"].filter(group="ring")
    assert rows.filter(sae="wide")["word"].to_list() == list(RING)
    assert rows.filter(sae="wide")["kind"].unique().to_list() == ["specific"]
    assert rows.filter(sae="narrow")["latent"].to_list() == [0]
    assert rows.filter(sae="narrow")["kind"].to_list() == ["general"]
    own = tables["latent_circles"].filter(group="ring", sae="wide")
    r2 = {row["points"]: row for row in own.to_dicts()}
    assert r2[REBUILT]["r2"] > 0.95 > r2[REBUILT]["null_high"]
    assert r2[REBUILT]["low"] <= r2[REBUILT]["r2"] + 1e-9
    assert r2["mean activations"]["r2"] > 0.95
    assert 0 < r2[REBUILT]["variance"] < 1
    assert r2[DECODER]["neighbours"] == len(RING)


def test_the_latents_of_words_come_from_the_general_one_by_rows_and_by_firing(
    tables: dict[str, pl.DataFrame],
) -> None:
    splits = tables["splits"].filter(group="ring")
    assert splits.select("narrow", "wide").unique().rows() == [("narrow", "wide")]
    assert splits["parent"].unique().to_list() == [0]
    assert splits["parent_in_group"].all()
    cosine = splits.filter(by="decoder cosine")
    assert (cosine["value"] > cosine["against"]).all()
    together = splits.filter(by="firing together")
    assert (together["covered"] == 1).all()
    assert (together["against"] < 0.7).all()


def entries(rows: int, latents: dict[int, np.ndarray], parts: int) -> list[Firings]:
    shards = []
    for part in np.array_split(np.arange(rows), parts):
        own = [
            (latent, row - part[0]) for latent in latents for row in part if latents[latent][row]
        ]
        columns = np.array(own).reshape(-1, 2).T
        places = Rows(*(part.astype(np.int32) for _ in range(3)))
        shards.append(
            Firings(int(part[0]), columns[1], columns[0].astype(np.int32), columns[1], places)
        )
    return shards


@pytest.mark.parametrize("parts", [(1, 1), (3, 2)])
def test_parents_by_firing_have_the_largest_correlation_whatever_the_shards(
    parts: tuple[int, int],
) -> None:
    draw = np.random.default_rng(0)
    n = 300
    parent = draw.random(n) < 0.3
    children = {2: parent & (draw.random(n) < 0.5), 5: draw.random(n) < 0.1}
    narrow = {0: np.ones(n, bool), 1: parent, 2: draw.random(n) < 0.95, 3: draw.random(n) < 0.2}
    parents = by_firing([2, 5], entries(n, children, parts[0]), entries(n, narrow, parts[1]), 4)
    assert parents.latents[0] == 1  # and not one that always fires
    for i, child in enumerate(children.values()):
        expected = [0.0 if own.all() else np.corrcoef(child, own)[0, 1] for own in narrow.values()]
        assert parents.latents[i] == np.argmax(expected)
        assert parents.values[i] == pytest.approx(max(expected))
        own = narrow[int(parents.latents[i])]
        assert parents.covered[i] == pytest.approx((child & own).sum() / child.sum())
        assert parents.against[i] == pytest.approx(own.mean())


def test_random_directions_stay_below_the_cosine_that_parents_are_held_against() -> None:
    draw = np.random.default_rng(0)
    narrow = draw.standard_normal((50, 30))
    child = narrow[7] + 0.3 * draw.standard_normal(30)
    parents = by_decoder(child[None], narrow, 0.95, 2_000, draw)
    assert parents.latents.tolist() == [7]
    assert parents.values[0] > parents.against[0]
    unit = narrow / np.linalg.norm(narrow, axis=1, keepdims=True)
    random = draw.standard_normal((4_000, 30))
    best = (random / np.linalg.norm(random, axis=1, keepdims=True) @ unit.T).max(axis=1)
    assert np.mean(best < parents.against[0]) == pytest.approx(0.95, abs=0.02)


def planted_periods(along: float) -> tuple[np.ndarray, ...]:
    """Texts of years, latents that fire around a year each, and decoder rows along time."""
    draw = np.random.default_rng(0)
    years = draw.uniform(1900, 2000, 240)
    axes = np.linalg.qr(draw.standard_normal((24, 24)))[0]
    points = np.outer((years - 1950) / 29, axes[0]) + 0.5 * draw.standard_normal((240, 24))
    periods = np.linspace(1905, 1995, 30)
    fires = np.exp(-0.5 * ((years[:, None] - periods) / 8) ** 2)
    latents = sparse.csr_array(np.where(fires > 0.2, fires, 0.0))
    decoder = np.outer(along * (periods - 1950) / 29, axes[0]) + draw.standard_normal((30, 24))
    return points, years, latents, decoder, periods


@pytest.mark.parametrize("along", [3.0, 0.0])
def test_latents_stand_along_a_line_in_the_order_of_their_periods_only_where_they_do(
    along: float,
) -> None:
    points, years, latents, decoder, periods = planted_periods(along)
    half = np.arange(120)
    of = dated(latents[120:], years[120:], 5)
    assert np.abs(of.values - periods[of.latents]).max() < 8
    blocks = np.floor((years[half] - 1900) / 10).astype(np.int64)
    own, order = order_along(
        points[half], years[half], blocks, decoder[of.latents], of, 200, 199, 0.95,
        np.random.default_rng(0),
    )  # fmt: skip
    assert order.rank == pytest.approx(stats.spearmanr(own, of.values).statistic)
    assert order.low <= order.rank <= order.high
    if along:
        assert order.rank > max(0.85, order.null_high)
        assert order.p <= 0.05
    else:
        assert order.rank < 0.5
        assert order.p > 0.01


def test_latents_of_blocks_that_lie_anywhere_are_in_no_order() -> None:
    """Each block of texts has a place of its own, and so has the latent that fires there."""
    p = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        blocks = np.repeat(np.arange(16), 6)
        years = 10.0 * blocks + draw.uniform(0, 10, 96)
        at = 2 * draw.standard_normal((16, 24))
        points = at[blocks] + draw.standard_normal((96, 24))
        fitted, held = halves(blocks, np.arange(96))
        fires = sparse.csr_array((blocks[held, None] == np.arange(16)).astype(float))
        of = dated(fires, years[held], 2)
        order = order_along(
            points[fitted], years[fitted], blocks[fitted] // 2, at[of.latents], of, 50, 39, 0.95,
            draw,
        )[1]  # fmt: skip
        p.append(order.p)
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_halves_share_no_block_and_no_group() -> None:
    draw = np.random.default_rng(0)
    blocks, groups = draw.integers(0, 9, 200), draw.integers(0, 150, 200)
    fitted, held = halves(blocks, groups)
    assert not set(blocks[fitted]) & set(blocks[held])
    assert not set(groups[fitted]) & set(groups[held])
    assert len(halves(blocks, np.arange(200))[1]) + len(fitted) == 200


def test_latents_that_fire_on_few_texts_or_on_most_have_no_period() -> None:
    code = np.zeros((20, 3))
    code[:2, 0] = code[:15, 1] = 1
    code[:5, 2] = [1, 1, 1, 1, 6]
    of = dated(sparse.csr_array(code), np.arange(20.0), 3)
    assert of.latents.tolist() == [2]
    assert of.values.tolist() == [pytest.approx((0 + 1 + 2 + 3 + 24) / 10)]
    assert of.texts.tolist() == [5]
    assert places(np.array([[3.0, 4.0]]), np.array([1.0, 0.0])).tolist() == [pytest.approx(0.6)]


def test_latents_of_the_line_are_read_off_where_they_were_not_fitted(
    tables: dict[str, pl.DataFrame],
) -> None:
    order = tables["dated_latents"].filter(line="time", sae="wide")
    assert set(order["of"]) == {"held-out texts", "again"}
    again = order.filter(of="again").row(0, named=True)
    assert again["latents"] == len(WORDS)
    assert again["rank"] == pytest.approx(1)
    narrow = tables["dated_latents"].filter(line="time", sae="narrow")
    assert narrow["left_out"].str.contains("have a number by").all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "years", "words": ["x"]}, "words: stands beside kind; give one of them"),
        ({"pattern": "("}, r"pattern: '\(' is no regular expression"),
    ],
)
def test_a_group_of_two_sets_or_of_none_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentGroup.model_validate(change)
