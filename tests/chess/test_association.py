"""Areas of sparse latents are Mann-Whitney's; what some games choose is measured on others; chance
finds nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from scipy import optimize, stats

from saeflow.chess.analyses.concepts.association import _offsets, associate
from saeflow.chess.analyses.concepts.labelling import Labelled, held_out_games
from saeflow.chess.analyses.concepts.probes import (
    DIFFERENCE,
    PROBE,
    PROBES,
    fit,
    measure,
)
from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.chess.knowledge.concepts import Concept, Labels
from saeflow.errors import SaeflowError
from saeflow.statistics.probes import difference_of_means, fit_probes
from saeflow.statistics.sparse_areas import SparseLabels, areas, clustered_area
from saeflow.statistics.sparse_latents import SparseLatents

SETTINGS = Concepts(minimum=10, latents=2, rotations=19, draws=1000)


def sparse_normals(n: int, d_sae: int, density: float, seed: int = 0) -> np.ndarray:
    """Latents that are mostly zero, with ties and some negative values."""
    generator = np.random.default_rng(seed)
    values = np.round(generator.normal(1, 1, (n, d_sae)), 1)
    return np.where(generator.random((n, d_sae)) < density, values, 0).astype(np.float32)


def latents_of(dense: np.ndarray, batch: int = 97) -> SparseLatents:
    return SparseLatents.of(torch.split(torch.from_numpy(dense), batch))


def named(values: np.ndarray, games: np.ndarray, seed: int = 0) -> Labelled:
    concepts = [Concept(f"c{index}", "test", index) for index in range(values.shape[1])]
    held = held_out_games(games, SETTINGS.held_out, seed)
    return Labelled(np.arange(len(games)), games, held, Labels(concepts, values))


def test_sparse_latents_hold_what_the_dense_ones_do() -> None:
    dense = sparse_normals(500, 30, 0.2)
    held = latents_of(dense)
    assert held.n == 500
    assert held.d_sae == 30
    for latent in range(30):
        assert (held.column(latent) == dense[:, latent]).all()
        assert (np.diff(held.of_latent(latent)[1]) >= 0).all()
    latents_read = np.array([7, 3, 400, 3 + 9])
    assert all(
        (held.part(latents_read).column(latent) == dense[latents_read, latent]).all()
        for latent in range(30)
    )


def test_all_areas_at_once_are_mann_whitney_s() -> None:
    dense = sparse_normals(400, 25, 0.15)
    dense[:, 3], dense[:, 4] = 0, 1.5  # one never fires, one always says the same
    generator = np.random.default_rng(1)
    labels = generator.random((400, 10)) < np.linspace(0.03, 0.97, 10)
    all_areas = np.concatenate(
        [area for _, area in areas(latents_of(dense), SparseLabels.of(labels))]
    )
    for latent in range(25):
        for concept in range(10):
            mine, others = dense[labels[:, concept], latent], dense[~labels[:, concept], latent]
            larger = (mine[:, None] > others).mean() + (mine[:, None] == others).mean() / 2
            assert all_areas[latent, concept] == pytest.approx(larger, abs=1e-12)
    assert (all_areas[3] == 0.5).all()
    assert (all_areas[4] == 0.5).all()


def test_the_interval_is_de_long_s_when_every_position_is_a_game() -> None:
    dense = sparse_normals(300, 1, 0.4)[:, 0]
    label = np.random.default_rng(2).random(300) < 0.3 + 0.3 * (dense > 0)
    held = latents_of(dense[:, None])
    area = clustered_area(*held.of_latent(0), label, np.arange(300), 0.95)
    larger = (dense[label][:, None] > dense[~label]) + (dense[label][:, None] == dense[~label]) / 2
    variance = larger.mean(axis=1).var() / label.sum() + larger.mean(axis=0).var() / (~label).sum()
    error = np.sqrt(variance * 300 / 299)
    assert area.auc == pytest.approx(larger.mean())
    assert area.low < area.auc < area.high
    assert area.high - area.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert (area.p <= 0.05) == (area.low > 0.5)


def test_the_interval_of_games_is_that_of_a_bootstrap_over_games() -> None:
    generator = np.random.default_rng(3)
    n_games, per_game = 150, 8
    games = np.repeat(np.arange(n_games), per_game)
    common = np.repeat(generator.normal(size=n_games), per_game)
    label = common + generator.normal(size=len(games)) > 0.5
    dense = np.maximum(0, common + label * 0.5 + generator.normal(size=len(games)) - 0.5).astype(
        np.float32
    )
    held = latents_of(dense[:, None])
    area = clustered_area(*held.of_latent(0), label, games, 0.95)
    alone = clustered_area(*held.of_latent(0), label, np.arange(len(games)), 0.95)
    drawn = []
    for _ in range(400):
        rows = (
            per_game * generator.integers(0, n_games, n_games)[:, None] + np.arange(per_game)
        ).ravel()
        mine, others = dense[rows][label[rows]], dense[rows][~label[rows]]
        drawn.append(stats.mannwhitneyu(mine, others).statistic / (len(mine) * len(others)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert area.high - area.low == pytest.approx(high - low, rel=0.15)
    assert alone.high - alone.low < 0.8 * (
        area.high - area.low
    )  # positions of a game are not independent


def test_halves_share_no_game_and_do_not_depend_on_what_else_is_there() -> None:
    games = np.random.default_rng(4).integers(0, 200, 1000)
    held = held_out_games(games, 0.3, seed=5)
    parts = Labelled(np.arange(1000), games, held, Labels([], np.zeros((1000, 0), bool))).parts
    assert not set(games[parts.selection]) & set(games[parts.held_out])
    assert sorted([*parts.selection, *parts.held_out]) == list(range(1000))
    assert 0.2 < len(set(games[parts.held_out])) / len(set(games)) < 0.4
    assert (held_out_games(games[:500], 0.3, seed=5) == held[:500]).all()
    for part in parts:
        neighbours = games[part]
        assert (
            len(set(neighbours)) == 1 + (np.diff(neighbours) != 0).sum()
        )  # positions of a game are neighbours


@pytest.fixture(scope="module")
def planted() -> tuple[SparseLatents, Labelled]:
    """Latent 7 fires with concept 0, latent 11 where concept 1 is absent; concept 2 is chance; 3 to
    6 are skipped."""
    generator = np.random.default_rng(6)
    n, d_sae = 4000, 200
    games = np.repeat(np.arange(n // 5), 5)
    labels = generator.random((n, 7)) < 0.2
    labels[:, 3], labels[:, 4] = False, True
    labels[:, 5], labels[:, 6] = np.arange(n) < 12, np.arange(n) >= 12
    dense = sparse_normals(n, d_sae, 0.05, seed=7)
    dense[:, 7] = np.where(labels[:, 0] & (generator.random(n) < 0.9), 2.0, dense[:, 7])
    dense[:, 11] = np.where(~labels[:, 1] & (generator.random(n) < 0.7), 1.0, 0.0)
    dense[:, 12] = 0
    dense[:5, 12] = 3  # fires too rarely to be chosen
    return latents_of(dense, 512), named(labels, games)


def test_planted_latents_are_found_in_both_directions(
    planted: tuple[SparseLatents, Labelled],
) -> None:
    concepts, associations = associate(*planted, SETTINGS, seed=0)
    first = {
        (row["concept"], row["direction"]): row for row in associations.filter(rank=0).to_dicts()
    }
    assert first["c0", 1]["latent"] == 7
    assert first["c1", -1]["latent"] == 11
    labels = planted[1].labels.values[:, 0]
    truth = (labels & (planted[0].column(7) > 0)).sum() / labels.sum()
    assert first["c0", 1]["auc"] == pytest.approx(0.5 + truth / 2, abs=0.03)
    assert first["c0", 1]["auc_low"] < first["c0", 1]["auc"] < first["c0", 1]["auc_high"]
    assert first["c1", -1]["auc"] < 0.2
    assert first["c0", 1]["p"] == first["c1", -1]["p"] == 1 / (1 + SETTINGS.draws)
    assert max(first["c0", 1]["q"], first["c1", -1]["q"]) < 0.01
    assert 0.5 < first["c0", 1]["auc_chance"] < 0.6
    assert 0.4 < first["c1", -1]["auc_chance"] < 0.5
    assert first["c0", 1]["null_p"] == first["c1", -1]["null_p"] == 1 / 20
    assert 12 not in associations["latent"]
    assert associations.group_by("concept", "direction").len()["len"].to_list() == [2] * 6
    assert concepts["skipped"].null_count() == 3


def test_chance_is_not_found_and_its_best_latent_looks_like_the_null(
    planted: tuple[SparseLatents, Labelled],
) -> None:
    _, associations = associate(*planted, SETTINGS, seed=0)
    chance = associations.filter(concept="c2", rank=0)
    assert (chance["q"] > 0.05).all()
    assert (chance["null_p"] > 0.05).all()
    # The winner's curse: on the half that chose it, the best of 200 looks like something.
    for row in chance.to_dicts():
        assert abs(row["auc_selection"] - 0.5) > abs(row["auc"] - 0.5)
        far = 0.5 + abs(row["auc_selection"] - 0.5)
        assert row["null_mean"] == pytest.approx(far, abs=0.02)


def test_concepts_without_two_classes_are_named_and_skipped(
    planted: tuple[SparseLatents, Labelled],
) -> None:
    concepts, associations = associate(*planted, SETTINGS, seed=0)
    reasons = dict(concepts.select("concept", "skipped").iter_rows())
    assert reasons["c3"] == "no position has it"
    assert reasons["c4"] == "every position has it"
    assert reasons["c5"] == "fewer than 10 positions of a half have it"
    assert reasons["c6"] == "fewer than 10 positions of a half lack it"
    assert not set(associations["concept"]) & {"c3", "c4", "c5", "c6"}
    only = named(planted[1].labels.values[:, 3:5], planted[1].games)
    assert associate(planted[0], only, SETTINGS, seed=0)[1].is_empty()


def in_stretches(
    shape: tuple[int, int, int], share: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """What holds in shares of the games, each time for a stretch: ``[games × positions,
    columns]``."""
    games, length, columns = shape
    start, run = (
        generator.integers(0, length, (games, 1, columns)),
        generator.integers(5, length, (games, 1, columns)),
    )
    inside = (np.arange(length)[None, :, None] - start) % length < run
    return (inside & (generator.random((games, 1, columns)) < share)).reshape(-1, columns)


@pytest.fixture(scope="module")
def stretches() -> tuple[SparseLatents, Labelled]:
    """Concepts and latents that last, in 120 games, and know nothing of each other; some concepts
    are of few games."""
    generator = np.random.default_rng(8)
    labels = in_stretches((120, 40, 80), np.linspace(0.05, 0.9, 80), generator)
    on = in_stretches((120, 40, 150), generator.uniform(0.05, 0.6, 150), generator)
    dense = (on * generator.lognormal(0, 0.4, on.shape)).astype(np.float32)
    return latents_of(dense, 512), named(labels, np.arange(4800) // 40)


def test_p_values_of_chance_are_uniform_and_nothing_is_found_where_concepts_and_latents_last(
    stretches: tuple[SparseLatents, Labelled],
) -> None:
    settings = SETTINGS.model_copy(update={"latents": 1, "games": 30})
    _, associations = associate(*stretches, settings, seed=1)
    tested = associations.filter(pl.col("untested").is_null())
    assert 60 < tested.height < associations.height
    assert stats.kstest(tested["p"], "uniform").pvalue > 0.01
    assert (associations["q"] > 0.05).all()
    missed = tested.filter((pl.col("auc_low") > 0.5) | (pl.col("auc_high") < 0.5)).height
    assert stats.binomtest(missed, tested.height, 0.05, "greater").pvalue > 0.01
    # The area that chance gives is of the same half as the area: no more than the level says lie
    # beyond it.
    beyond = tested.filter(pl.col("direction") * (pl.col("auc") - pl.col("auc_chance")) > 0).height
    assert stats.binomtest(beyond, tested.height, 0.025, "greater").pvalue > 0.01


def test_of_concepts_in_few_games_nothing_is_claimed_and_the_reason_is_told(
    stretches: tuple[SparseLatents, Labelled],
) -> None:
    latents, labelled = stretches
    concepts, associations = associate(
        latents, labelled, SETTINGS.model_copy(update={"latents": 1, "games": 30}), seed=1
    )
    few = associations.filter(pl.col("untested").is_not_null())
    assert few.height > 10
    assert (few["p"] == 1).all()
    assert (few["q"] == 1).all()
    assert (few["auc_low"] == 0).all()
    assert (few["auc_high"] == 1).all()
    assert few["auc_chance"].is_null().all()
    assert few["auc"].is_between(0.2, 0.8).all()  # the area itself is told
    rows = labelled.parts.held_out
    for row in concepts.to_dicts():
        label = labelled.labels.values[rows, int(row["concept"][1:])]
        having, lacking = (len(set(labelled.games[rows][held])) for held in (label, ~label))
        assert (row["held_out_games"], row["held_out_games_without"]) == (having, lacking)
        reason = None if having >= 30 else f"only {having} held-out games have it, fewer than 30"
        assert row["untested"] == reason
    everywhere = named(~labelled.labels.values, labelled.games)
    turned, _ = associate(
        latents, everywhere, SETTINGS.model_copy(update={"latents": 1, "games": 121}), seed=1
    )
    assert turned["untested"].str.contains("held-out games have it, fewer than 121").all()
    x = np.random.default_rng(0).normal(size=(4800, 4)).astype(np.float32)
    settings, kept = SETTINGS.model_copy(update={"games": 30}), np.arange(80)
    fitted = fit(x, labelled, kept, settings)
    probes = measure(fitted, x, labelled, kept, settings)
    apart = probes.filter(pl.col("untested").is_not_null())
    assert set(apart["concept"]) == set(
        concepts.filter(pl.col("untested").is_not_null())["concept"]
    )
    assert (
        apart.select((pl.col("p") == 1) & (pl.col("auc_low") == 0) & (pl.col("auc_high") == 1))
        .to_series()
        .all()
    )


def test_tests_of_all_concepts_are_one_family_and_those_that_are_untested_are_no_part_of_it(
    stretches: tuple[SparseLatents, Labelled],
) -> None:
    _, associations = associate(
        *stretches, SETTINGS.model_copy(update={"latents": 1, "games": 30}), seed=1
    )
    tested = associations.filter(pl.col("untested").is_null())
    assert np.allclose(tested["q"], stats.false_discovery_control(tested["p"]))


def test_labels_are_out_of_step_by_a_game_at_least() -> None:
    games = np.repeat(np.arange(40), np.random.default_rng(0).integers(3, 30, 40))
    longest, n = np.bincount(games).max(), len(games)
    offsets = _offsets(games, 2000, seed=0)
    assert longest == min(offsets)
    assert n - longest == max(offsets)
    assert set(_offsets(np.zeros(5, np.int64), 200, seed=0)) == {1, 2, 3, 4}


def test_latents_that_are_not_numbers_are_refused_with_their_positions() -> None:
    dense = sparse_normals(50, 4, 0.5)
    dense[[7, 9], 2] = np.nan
    with pytest.raises(SaeflowError, match=r"in 2 of 50 rows latents are not numbers"):
        latents_of(dense)
    rows, values = np.array([0, 1]), np.array([1.0, np.nan], np.float32)
    area = clustered_area(rows, values, np.array([True, False, True]), np.arange(3), 0.95)
    assert np.isnan(area).all()


@pytest.fixture(scope="module")
def written() -> tuple[np.ndarray, Labelled, np.ndarray]:
    """Activations in which three concepts are written along directions of their own, one of them
    hardly."""
    generator = np.random.default_rng(10)
    n, width = 1500, 24
    labels = generator.random((n, 3)) < (0.3, 0.1, 0.5)
    directions = np.linalg.qr(generator.normal(size=(width, width)))[0][:3]
    noise = generator.normal(size=(n, width)) * np.linspace(0.3, 3, width)
    x = noise + labels * np.array([3.0, 3.0, 0.0]) @ directions + 5
    return x.astype(np.float32), named(labels, np.arange(n) // 3), directions


def test_probes_are_the_minimum_that_scipy_finds(
    written: tuple[np.ndarray, Labelled, np.ndarray],
) -> None:
    x, labelled, _ = written
    labels, penalty = labelled.labels.values, 0.01
    fitted = fit_probes(x, labels, penalty)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)

    def loss(w: np.ndarray, label: np.ndarray) -> float:
        odds = standard @ w[:-1] + w[-1]
        return float(
            np.logaddexp(0, odds).mean()
            - odds[label].sum() / len(odds)
            + penalty / 2 * (w[:-1] ** 2).sum()
        )

    for concept, label in enumerate(labels.T):
        best = optimize.minimize(
            loss, np.zeros(x.shape[1] + 1), (label,), method="BFGS", options={"gtol": 1e-6}
        )
        odds = standard @ best.x[:-1] + best.x[-1]
        assert np.allclose(
            x @ fitted.weights[:, concept] + fitted.offsets[concept], odds, atol=2e-3
        )


def test_probes_of_concepts_that_are_told_apart_perfectly_stay_finite() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 20, axis=0)
    labels = np.stack([x[:, 0] > 0, x[:, 1] > 0], axis=1)
    fitted = fit_probes(x, labels, 1e-4)
    assert np.isfinite(fitted.weights).all()
    assert ((x @ fitted.weights + fitted.offsets > 0) == labels).all()


def test_differences_of_means_point_from_without_to_with(
    written: tuple[np.ndarray, Labelled, np.ndarray],
) -> None:
    x, labelled, _ = written
    label = labelled.labels.values[:, 0]
    expected = x[label].mean(axis=0) - x[~label].mean(axis=0)
    differences = difference_of_means(x, labelled.labels.values).weights[:, 0]
    assert np.allclose(differences, expected / np.linalg.norm(expected), atol=1e-5)


def test_probes_are_measured_on_other_games_than_they_are_fitted_on(
    written: tuple[np.ndarray, Labelled, np.ndarray],
) -> None:
    x, labelled, _ = written
    kept = np.arange(3)
    measured = measure(fit(x, labelled, kept, SETTINGS), x, labelled, kept, SETTINGS)
    assert dict(measured.schema) == PROBES
    by = {(row["concept"], row["method"]): row for row in measured.to_dicts()}
    for concept in ("c0", "c1"):
        assert by[concept, PROBE]["auc_low"] > 0.85
        assert (
            by[concept, PROBE]["auc"] > by[concept, DIFFERENCE]["auc"]
        )  # noise is larger along some axes
    assert by["c2", PROBE]["auc_selection"] > by["c2", PROBE]["auc"] + 0.03  # fitted to noise
    assert by["c2", PROBE]["auc_low"] < 0.5 < by["c2", PROBE]["auc_high"]
