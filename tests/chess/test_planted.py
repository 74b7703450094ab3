"""On a model with a known mechanism: its latents are found, skill shows where it acts,
interventions act there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from planted_chess import GATED, LATENT_OF, N_BINS, PlantedModel, planted_subject
from scipy import stats

from saeflow.chess.analyses.concepts.cases import Cases, alike
from saeflow.chess.analyses.interventions.edits import NO_LATENT, Edited, Reconstructed
from saeflow.chess.analyses.interventions.interventions import (
    INTERVENTIONS,
    MISSED,
    choose,
    intervene,
)
from saeflow.chess.analyses.interventions.settings import Interventions
from saeflow.chess.analyses.interventions.trials import SETS, Configuration, Group, Outcome
from saeflow.chess.analyses.skill.awareness import Awareness
from saeflow.chess.analyses.skill.settings import Skill
from saeflow.chess.analyses.skill.skill import AWARENESS, SKILL, correlations, skill
from saeflow.chess.games.boards import START, join, read_fens
from saeflow.chess.knowledge.concepts import concepts_of
from saeflow.chess.saes.reading import embed_boards, judged
from saeflow.chess.saes.site import SiteSAE
from saeflow.errors import SaeflowError
from saeflow.statistics.clusters import CHANGE, SHARE, Resampling, cells
from saeflow.statistics.sparse_latents import SparseLatents

START_BOARD = read_fens([START])
GROWING = PlantedModel(written=(0.5, 1.0, 1.5, 2.0), used=(2.0,) * N_BINS)
SKILL_SETTINGS = Skill(groups=["offensive_threat"], positions=500, resamples=200, controls=3)
SETTINGS = Interventions(
    groups=["offensive_threat"],
    strengths=[5.0, 40.0],
    latents=[1],
    positions=120,
    controls=2,
    resamples=200,
    minimum=15,
)


def test_the_latent_of_every_threat_is_found() -> None:
    subject, _ = planted_subject(GATED)
    threats = subject.associations.filter(family="offensive_threat", direction=1, rank=0)
    assert threats.height > 25
    for row in threats.to_dicts():
        assert row["latent"] == LATENT_OF[row["square"]]
        assert row["auc"] == 1.0
        assert row["p"] == 1 / 2001
        assert row["q"] < 3e-3
        assert 0.45 < row["auc_chance"] < 0.8
        assert row["null_largest"] < 0.9


@pytest.fixture(scope="module")
def gated() -> tuple[pl.DataFrame, pl.DataFrame]:
    subject, sae = planted_subject(GATED)
    return skill(GATED, sae, subject, SKILL_SETTINGS, seed=0)


def test_awareness_is_level_where_only_use_grows_with_skill(
    gated: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    by_rating, by_concept = gated
    assert by_rating["rating"].to_list() == list(range(N_BINS))
    assert dict(by_rating.schema) == SKILL
    assert (by_rating["awareness"] == 1.0).all()
    assert (by_rating["awareness_high"] == 1.0).all()
    assert (
        by_rating["awareness_low"].is_between(0.8, 0.995).all()
    )  # of so many games, not of infinitely many
    assert by_rating["control_awareness"].is_between(0.4, 0.6).all()
    assert np.allclose(by_rating["activation"], by_rating["activation"][0], rtol=1e-5)
    for name in ("willingness", "accuracy"):
        assert (np.diff(by_rating[name]) > 0.01).all(), name
        assert (by_rating[f"{name}_low"] <= by_rating[name]).all()
        assert (by_rating[f"{name}_high"] >= by_rating[name]).all()
    assert by_rating["accuracy"][-1] == 1.0  # the strongest says what is right
    assert dict(by_concept.schema) == AWARENESS
    assert (by_concept["willingness_change"] > 0.2).all()
    assert (by_concept["awareness_change"] == 0).all()
    assert (by_concept["awareness_change_low"] < -0.05).all()
    assert (by_concept["awareness_change_high"] > 0.05).all()


def test_awareness_and_behaviour_go_together_where_activations_grow() -> None:
    subject, sae = planted_subject(GROWING)
    _, by_concept = skill(GROWING, sae, subject, SKILL_SETTINGS, seed=0)
    assert by_concept.height > 5
    assert (by_concept["n_defined"] == by_concept["n"]).all()
    assert (by_concept["r"] > 0.8).all()
    assert abs(by_concept["control_r"].mean()) < 0.3
    # The mean of |r| over four ratings is far from 0 by chance: the control is where the shuffled
    # one is.
    assert by_concept["control_abs_r"].mean() == pytest.approx(
        by_concept["shuffled_abs_r"].mean(), abs=0.1
    )
    assert by_concept["shuffled_abs_r"].mean() > 0.3


def test_correlations_along_ratings_are_pearson_s() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 11, 6))
    a[:, 3] = 0.7
    computed = correlations(a, b)
    assert np.isnan(computed[3])
    for case in (0, 1, 2, 4, 5):
        assert computed[case] == pytest.approx(np.corrcoef(a[:, case], b[:, case])[0, 1])


@pytest.fixture(scope="module")
def edited() -> pl.DataFrame:
    subject, sae = planted_subject(GATED)
    return intervene(GATED, sae, subject, SETTINGS, seed=0).interventions


def rows(table: pl.DataFrame, kind: str, cases: str) -> pl.DataFrame:
    return table.filter(split="report", kind=kind, set=cases).sort("rating")


def test_the_intervention_raises_accuracy_where_the_concept_is_needed_and_only_there(
    edited: pl.DataFrame,
) -> None:
    assert dict(edited.schema) == INTERVENTIONS
    needs, unneeded, absent = (rows(edited, "edited", cases) for cases in SETS)
    assert needs["rating"].to_list() == [0, 1, 2]
    assert (needs["gain_low"] > 0.2).all()
    assert (needs["accuracy"] > 0.9).all()
    assert (
        unneeded["gain"] <= 0
    ).all()  # to act on a threat where something else is right does harm
    assert (absent["gain"] == 0).all()
    assert (absent["kl"] < 1e-9).all()
    assert (needs["kl"] > 0.3).all()


def test_missed_positions_are_those_that_need_the_concept_and_that_the_model_gets_wrong(
    edited: pl.DataFrame,
) -> None:
    for kind in ("edited", "random"):
        needs, missed = rows(edited, kind, "needs"), rows(edited, kind, MISSED)
        wrong = (needs["n"] * (1 - needs["accuracy_before"])).round().cast(pl.Int64)
        assert missed["n"].to_list() == [count for count in wrong if count]
        assert (missed["accuracy_before"] == 0).all()
        assert (missed["gain"] == missed["accuracy"]).all()
    mended, by_chance = (rows(edited, kind, MISSED)["gain"] for kind in ("edited", "random"))
    assert (mended > 0.8).all()
    assert (by_chance < 0.1).all()


def test_strength_one_changes_nothing_to_the_last_bit(edited: pl.DataFrame) -> None:
    for cases in SETS:
        same = rows(edited, "strength_1", cases)
        for name in ("gain", "right_gain", "kl", "moved", "kl_high", "moved_high"):
            assert (same[name] == 0).all(), name
        assert (same["gain_low"] < 0).all()  # of so many games; other games are not known
        assert (same["accuracy"] == same["accuracy_before"]).all()


def test_random_latents_and_the_reconstruction_do_nothing(edited: pl.DataFrame) -> None:
    for kind in ("random", "reconstruction"):
        for cases in SETS:
            control = rows(edited, kind, cases)
            assert (control["gain"].abs() <= 0.02).all(), kind
            # Among random latents may be threats on squares that are too rare to be concepts of
            # this study.
            assert (control["kl"] <= (1e-4 if kind == "reconstruction" else 0.25)).all(), kind
            assert (control["moved"] > 0).all(), kind  # something was done, it has no effect


def test_configurations_are_tried_on_other_games_than_they_are_reported_on(
    edited: pl.DataFrame,
) -> None:
    tried = edited.filter(split="selection", set="needs", kind="edited")
    assert tried.height == 3 * 3 * 2  # ratings × modes × strengths
    assert (tried.group_by("rating").agg(pl.col("chosen").sum())["chosen"] == 1).all()
    for (rating,), at in tried.group_by("rating"):
        best = at.filter("chosen")
        assert best["gain"][0] == at["gain"].max()
        reported = rows(edited, "edited", "needs").filter(rating=rating)
        assert reported.select("mode", "strength", "latents").row(0) == best.select(
            "mode", "strength", "latents"
        ).row(0)


def test_results_do_not_depend_on_how_many_boards_are_judged_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject, sae = planted_subject(GATED)
    small = SETTINGS.model_copy(
        update={"bins": [0], "modes": ["add"], "strengths": [3.0], "resamples": 100}
    )
    whole = intervene(GATED, sae, subject, small, seed=0).interventions
    monkeypatch.setattr("saeflow.chess.saes.reading.BOARDS_AT_ONCE", 37)
    parts = intervene(GATED, sae, subject, small, seed=0).interventions
    numbers = [name for name, kind in INTERVENTIONS.items() if kind == pl.Float64]
    assert whole.drop(numbers).equals(parts.drop(numbers))
    assert np.allclose(
        whole[numbers].to_numpy().astype(float),
        parts[numbers].to_numpy().astype(float),
        atol=1e-6,
        equal_nan=True,
    )


def of_cases(count: int, concepts: int) -> Cases:
    """So many cases of concepts in turn, each of a game of its own."""
    index = np.arange(count)
    return Cases(join([START_BOARD] * count), index % concepts, index, index)


@pytest.mark.parametrize(("having", "lacking"), [(60, 15), (100, 100), (30, 200)])
def test_intervals_of_awareness_hold_what_positions_with_and_without_the_concept_owe_to_chance(
    having: int, lacking: int
) -> None:
    generator = np.random.default_rng(having)
    present, absent = of_cases(having, 2), of_cases(lacking, 2)
    absent = replace(
        absent, games=absent.games + having // 2
    )  # some games have cases of both kinds
    held, changed = [], []
    truth = [float(stats.norm.cdf(shift / np.sqrt(2))) for shift in (0.5, 1.5)]
    for _ in range(300):
        values = generator.normal(size=(3, 2, having + lacking))
        values[0, :, :having] += np.array([[0.5], [1.5]])
        awareness = Awareness.of(values, present, absent, 0.95)
        held += [
            mean.low <= true <= mean.high
            for mean, true in zip(map(awareness.at, (0, 1)), truth, strict=True)
        ]
        control = awareness.of_controls(0)
        held.append(control.low <= 0.5 <= control.high)
        change = awareness.change(0)
        changed.append(change.low <= truth[1] - truth[0] <= change.high)
    assert np.mean(held) > 0.93
    assert np.mean(changed) > 0.92


def test_awareness_is_the_mean_of_areas_by_the_cases_of_concepts_that_others_lack() -> None:
    generator = np.random.default_rng(3)
    present, absent = of_cases(50, 3), of_cases(40, 2)  # nothing lacks the third concept
    values = generator.normal(size=(2, 4, 90)) + (np.arange(90) < 50)
    awareness = Awareness.of(values, present, absent, 0.9)
    areas, counts = [], []
    for concept in (0, 1):
        mine, others = (
            values[0, 2, :50][present.concepts == concept],
            values[0, 2, 50:][absent.concepts == concept],
        )
        areas.append((mine[:, None] > others).mean())
        counts.append(len(mine))
    assert awareness.at(2).value == pytest.approx(np.average(areas, weights=counts))
    assert np.isnan(awareness.change(2).value)
    assert not np.isnan(awareness.change(1).value)
    nothing = Awareness.of(values[:, :, :50], present, absent.part(np.zeros(40, bool)), 0.9)
    assert np.isnan(nothing.at(0)).all()


def test_controls_of_latents_that_are_changed_together_are_all_different() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(800, 60, generator=generator) * (
        torch.rand(800, 60, generator=generator) < 0.1
    )
    concepts = concepts_of(["offensive_threat"])
    rows = [
        {"concept": concept.name, "direction": 1, "rank": rank, "latent": (3 * place + rank) % 45,
         "auc_selection": 0.9, "null_largest": 0.6}
        for place, concept in enumerate(concepts) for rank in range(3)
    ]  # fmt: skip
    subject = SimpleNamespace(
        associations=pl.DataFrame(rows), concepts=concepts, latents=SparseLatents.of([dense])
    )
    settings = Interventions(latents=[1, 3], controls=4)
    group = Group.of("offensive_threat", subject, settings, 0)  # type: ignore[arg-type]
    for control in group.controls:
        for concept, drawn in control.items():
            assert len({*drawn, *group.latents[concept]}) == 6
    few = SimpleNamespace(
        **{**vars(subject), "latents": SparseLatents.of([dense[:, :5].contiguous()])}
    )
    few.associations = few.associations.filter(pl.col("latent") < 3)
    with pytest.raises(
        SaeflowError, match=r"1 random latents were to be drawn beside latent \d, and 0 others"
    ):
        Group.of("offensive_threat", few, settings, 0)  # type: ignore[arg-type]
    with pytest.raises(
        SaeflowError, match="5 random latents were to be drawn beside latent 2, and 4 others fire"
    ):
        alike(few.latents, 2, (), {1}, 5, 0, "test")
    assert sorted(alike(few.latents, 2, (), {1}, 4, 0, "test")) == [0, 1, 3, 4]
    assert sorted(alike(few.latents, 2, (), {1}, 3, 0, "test")) == [0, 3, 4]


def test_ratings_with_too_few_cases_are_named_and_skipped() -> None:
    subject, sae = planted_subject(GATED)
    intervened = intervene(
        GATED, sae, subject, SETTINGS.model_copy(update={"minimum": 100_000, "bins": [1]}), seed=0
    ).interventions
    assert intervened.height == 1
    assert "positions of a half need the concept, fewer than 100000" in intervened["skipped"][0]
    with pytest.raises(SaeflowError, match="no concept and no family is called 'offense'"):
        intervene(GATED, sae, subject, SETTINGS.model_copy(update={"groups": ["offense"]}), seed=0)


def test_a_group_whose_concepts_no_latent_tells_is_named_and_not_fatal() -> None:
    subject, sae = planted_subject(GATED)
    nothing = subject._replace(associations=subject.associations.clear())
    by_rating, by_concept = skill(GATED, sae, nothing, SKILL_SETTINGS, seed=0)
    assert by_rating.select("group", "rating", "n").rows() == [("offensive_threat", None, 0)]
    assert by_concept.is_empty()
    intervened = intervene(GATED, sae, nothing, SETTINGS, seed=0)
    assert intervened.transitions.is_empty()
    assert intervened.shifts.is_empty()
    assert (
        intervened.interventions["skipped"].to_list()
        == ["only 0 positions of a half need the concept, fewer than 15"] * 3
    )


def test_means_over_games_have_the_intervals_of_a_bootstrap_by_hand() -> None:
    generator = np.random.default_rng(5)
    games = generator.integers(0, 40, 300)
    values = generator.normal(size=300) + games % 3
    values[generator.random(300) < 0.2] = np.nan
    mean = Resampling(games, 2000, 0.9, np.random.default_rng(6)).mean(values)
    assert mean.value == pytest.approx(np.nanmean(values))
    drawn = []
    for _ in range(1000):
        rows = np.concatenate(
            [np.flatnonzero(games == game) for game in generator.integers(0, 40, 40)]
        )
        drawn.append(np.nanmean(values[rows]))
    assert (mean.low, mean.high) == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])), abs=0.05)
    nothing = Resampling(games, 100, 0.9, generator).mean(np.full(300, np.nan), SHARE)
    assert np.isnan(nothing.value)


def test_a_single_unit_has_a_mean_and_no_interval_unless_values_have_bounds() -> None:
    """An interval of no width would say that the mean is sure."""
    units = np.repeat([0, 1], 8)
    values = np.where(units == 0, np.arange(16.0), np.nan)
    alone = Resampling(units, 100, 0.95, np.random.default_rng(0))
    assert cells(alone.mean(values)) == [3.5, None, None]
    bounded = alone.mean(values / 7, SHARE)
    assert bounded.low < 0.1 < 0.5 < 0.9 < bounded.high


@pytest.mark.parametrize(("games", "rate"), [(10, 0.05), (20, 0.1), (40, 0.02), (40, 0.5)])
def test_intervals_of_shares_and_changes_hold_the_truth_where_events_are_rare_and_games_few(
    games: int, rate: float
) -> None:
    generator = np.random.default_rng(games)
    of_game = np.repeat(np.arange(games), 3)
    held = []
    for _ in range(400):
        events = np.repeat(generator.random(games) < rate, 3).astype(
            float
        )  # all of a game's positions, or none
        signs = np.repeat(np.where(generator.random(games) < 0.5, -1.0, 1.0), 3)
        resampling = Resampling(of_game, 400, 0.95, generator)
        share, change = resampling.mean(events, SHARE), resampling.mean(events * signs, CHANGE)
        held.append((share.low <= rate <= share.high, change.low <= 0 <= change.high))
    assert np.mean(held, axis=0).min() > 0.93
    never = Resampling(of_game, 2000, 0.95, generator)
    nothing = never.mean(np.zeros(3 * games), SHARE)
    assert nothing.value == nothing.low == 0
    assert nothing.high == pytest.approx(
        stats.beta.ppf(0.975, 1, games), rel=0.1
    )  # Clopper and Pearson's
    part = np.where(
        np.arange(3 * games) % 3 == 0, 0.0, np.nan
    )  # one position of each game is known
    assert never.mean(part, SHARE).high == pytest.approx(nothing.high, rel=1e-9)


def test_the_right_move_may_be_the_played_one_or_an_engine_s() -> None:
    subject, sae = planted_subject(GATED)
    only = Skill(
        groups=["offensive_threat"], positions=100, resamples=100, controls=1, correct="played"
    )
    by_rating, _ = skill(GATED, sae, subject, only, seed=0)
    engine = only.model_copy(update={"correct": "best"})
    same, _ = skill(GATED, sae, subject._replace(best=subject.played), engine, seed=0)
    assert by_rating.equals(same)
    unknown, _ = skill(
        GATED, sae, subject._replace(best=np.full_like(subject.played, -1)), engine, seed=0
    )
    assert (unknown["n_needed"] == 0).all()
    assert unknown["accuracy"].is_null().all()
    with pytest.raises(SaeflowError, match="wants an engine's moves"):
        skill(GATED, sae, subject, engine, seed=0)


@pytest.mark.parametrize("tokens", ["mean", "all"])
def test_an_edit_adds_the_decoded_difference_and_keeps_the_error(tokens: str) -> None:
    _, planted = planted_subject(GATED)
    sae = SiteSAE(planted.sae, tokens)  # type: ignore[arg-type]
    x = torch.randn(5, 3, planted.sae.d_model, generator=torch.Generator().manual_seed(3))
    latents = torch.tensor([[4, 9], [9, 7], [1, NO_LATENT], [NO_LATENT, NO_LATENT], [0, 1]])
    units = torch.rand(planted.sae.d_sae, generator=torch.Generator().manual_seed(4)).double() + 0.5
    for mode, changed in (
        ("multiply", lambda z, unit: 3 * z),
        ("add", lambda z, unit: z + 3 * unit),
        ("clamp", lambda z, unit: 3 * unit + 0 * z),
    ):
        after = Edited(sae, latents, units, mode, 3.0)(x)
        z = sae.encode(x)
        edited = z.clone()
        for row, column in [(0, 4), (0, 9), (1, 9), (1, 7), (2, 1), (4, 0), (4, 1)]:
            edited[row, :, column] = changed(z[row, :, column], units[column].float())
        expected = x + planted.sae.decode(edited) - planted.sae.decode(z)
        assert torch.allclose(after, expected, atol=1e-5)
        assert torch.equal(after[3], x[3])
        if tokens == "mean":  # the tokens keep their differences
            assert torch.allclose(after - after.mean(1, True), x - x.mean(1, True), atol=1e-5)
    rebuilt = Reconstructed(sae)(x)
    assert torch.allclose(sae.seen(rebuilt), planted.sae.reconstruct(sae.seen(x)), atol=1e-5)


def test_choices_are_legal_and_an_illegal_favourite_is_counted() -> None:
    subject, _ = planted_subject(GATED)
    boards = subject.examples.boards.part(slice(0, 300))
    legal_favourites = []
    for batch in embed_boards(GATED, boards):
        said = judged(GATED, batch, 0)
        assert batch.legal.gather(1, said.choice[:, None]).all()
        assert torch.allclose(said.log_probs.exp().sum(1), torch.ones(len(said.choice)).double())
        legal_favourites.append(batch.legal.gather(1, said.logits.argmax(1, True)))
    assert not torch.cat(
        legal_favourites
    ).all()  # raw favourites are often illegal: the mask matters


def test_the_configuration_that_makes_the_right_move_most_probable_is_chosen() -> None:
    needs, zero = np.array([True, True]), np.zeros(2)

    def outcome(right: list[float], accuracy: list[float]) -> Outcome:
        return Outcome(np.array(accuracy), np.array(right), zero, zero, zero)

    tried = {
        Configuration("add", 2.0, 1): outcome([0.4, 0.4], [1, 1]),
        Configuration("add", 5.0, 1): outcome([0.6, 0.4], [1, 1]),
        Configuration("add", 9.0, 1): outcome([0.9, 0.0], [1, 1]),
    }
    before = outcome([0.3, 0.3], [1, 1])  # no headroom: accuracy tells nothing
    assert choose(tried, before, needs) == Configuration("add", 5.0, 1)


def test_among_equal_gains_the_gentlest_configuration_is_chosen() -> None:
    needs = np.array([True, True, False, False])
    zero = np.zeros(4)

    def outcome(accuracy: list[float], harm: float) -> Outcome:
        return Outcome(np.array(accuracy), zero, np.array([5.0, 5.0, harm, harm]), zero, zero)

    tried = {
        Configuration("multiply", 2.0, 1): outcome([1, 0, 1, 1], 0.0),
        Configuration("add", 2.0, 1): outcome([1, 1, 1, 1], 0.5),
        Configuration("clamp", 2.0, 1): outcome([1, 1, 0, 0], 0.1),
        Configuration("clamp", 3.0, 1): outcome([1, 1, 0, 0], 0.1),
    }
    assert choose(tried, outcome([0, 0, 1, 1], 0.0), needs) == Configuration("clamp", 2.0, 1)
