"""Token sets in the order of logit weights: statistics, p-values and discoveries held to scipy and
to planted truth."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from checkout import ROOT
from scipy import stats
from scipy.sparse.linalg import svds

from saeflow.analyses.logit_lens import enrichment, gsea
from saeflow.analyses.logit_lens.io import read_set_files
from saeflow.analyses.logit_lens.logit_lens import look_through, random_directions
from saeflow.analyses.logit_lens.ranks import Order, SetIndex, Standing, ordered, standings
from saeflow.analyses.logit_lens.settings import TokenSetSelection
from saeflow.analyses.logit_lens.token_sets import MemberSet, token_sets
from saeflow.corpora.tales import story_blocks
from saeflow.corpora.tales import tokenizer as tales_tokenizer
from saeflow.models.vocabulary import vocabulary
from saeflow.seeds import numpy_generator
from saeflow.statistics.false_discovery import q_values
from saeflow.statistics.rank_tests import ks_p_values, rank_sum_p_values

TOKENS = 700


def published_score(weights: np.ndarray, members: np.ndarray) -> float:
    """The running sum as it is published: along the sorted tokens, up for a member, down for any
    other."""
    hit = np.isin(np.argsort(-weights, kind="stable"), members)
    running = np.cumsum(np.where(hit, 1 / hit.sum(), -1 / (~hit).sum()))
    return float(np.abs(running).max())


def leading_sizes(weights: np.ndarray, members: np.ndarray) -> set[int]:
    """Members up to every place where the running sum is as far from 0 as anywhere; from the end
    they gather at."""
    hit = np.isin(np.argsort(-weights, kind="stable"), members)
    last = np.append(np.diff(np.sort(-weights)) > 0, True)
    m, n = hit.sum(), (~hit).sum()
    running = np.where(last, np.cumsum(np.where(hit, n, -m)), 0)
    reached = np.cumsum(hit)[np.abs(running) == np.abs(running).max()]
    return {*reached.tolist(), *(m - reached).tolist()}


def drawn_sets(
    generator: np.random.Generator, sizes: tuple[int, ...], tokens: int = TOKENS
) -> list[np.ndarray]:
    return [
        np.sort(generator.choice(tokens, size, replace=False)).astype(np.int32) for size in sizes
    ]


def each(order: Order, members: list[np.ndarray]) -> list[Standing]:
    """How each of some sets stands."""
    columns = standings(order, SetIndex.of(members, len(order.tokens)))
    return [Standing(*values) for values in zip(*columns, strict=True)]


def as_sets(members: list[np.ndarray]) -> list[MemberSet]:
    return [MemberSet(f"set_{place}", "user", "drawn", ids) for place, ids in enumerate(members)]


def test_the_extreme_is_found_wherever_it_lies() -> None:
    """Sets of every size, random, gathered and spread, on vocabularies that end within a block and
    at its edge."""
    generator = numpy_generator(0, "extremes")
    for tokens in (64, 65, 127, 1000, 4096):
        for tied in (False, True):
            weights = generator.standard_normal(tokens).astype(np.float32)
            weights = np.round(weights, 1) if tied else weights
            order = ordered(weights)
            members = drawn_sets(generator, (1, 2, tokens // 9, tokens // 2, tokens - 1), tokens)
            members += [
                np.sort(order.tokens[those]).astype(np.int32)
                for those in (slice(3, 40), slice(-9, -1))
            ]
            members += [np.sort(order.tokens[::2]).astype(np.int32)]
            for own, standing in zip(members, each(order, members), strict=True):
                inside, outside = (
                    values.astype(float) for values in (weights[own], np.delete(weights, own))
                )
                expected = stats.ks_2samp(inside, outside, method="asymp")
                assert abs(standing.ks) == pytest.approx(expected.statistic, abs=1e-12)
                assert standing.leading in leading_sizes(weights, own)


@pytest.mark.parametrize("tied", [False, True])
def test_statistics_equal_scipy_s_with_and_without_ties(tied: bool) -> None:
    generator = numpy_generator(0, "statistics", str(tied))
    weights = generator.standard_normal(TOKENS).astype(np.float32)
    if tied:
        weights = np.round(weights, 1)
        weights[:2] = 0.0, -0.0
    members = drawn_sets(generator, (1, 5, 40, 300, 699))
    order = ordered(weights)
    assert (order.tie_term > 0) == tied
    for own, standing in zip(members, each(order, members), strict=True):
        inside, outside = weights[own].astype(float), np.delete(weights, own).astype(float)
        expected = stats.ks_2samp(inside, outside)
        assert abs(standing.ks) == pytest.approx(expected.statistic, abs=1e-12)
        u = stats.mannwhitneyu(inside, outside).statistic
        assert standing.auc == pytest.approx(u / len(inside) / len(outside), abs=1e-12)
        if not np.isclose(
            *(stats.ks_2samp(inside, outside, side).statistic for side in ("less", "greater"))
        ):
            assert np.sign(standing.ks) == -expected.statistic_sign


def test_the_score_is_the_published_running_sum_with_its_sign() -> None:
    generator = numpy_generator(0, "published")
    for _ in range(20):
        weights = generator.standard_normal(TOKENS).astype(np.float32)
        members = drawn_sets(generator, (3, 30, 400))
        for own, standing in zip(members, each(ordered(weights), members), strict=True):
            assert abs(standing.ks) == pytest.approx(published_score(weights, own), abs=1e-6)
    top = np.argsort(-weights)[:9].astype(np.int32)
    (highest,), (lowest,) = (each(ordered(w), [top]) for w in (weights, -weights))
    assert (highest.ks, highest.auc, highest.leading) == (1.0, 1.0, 9)
    assert (lowest.ks, lowest.auc, lowest.leading) == (-1.0, 0.0, 9)


def test_a_sorted_order_falls_and_breaks_ties_by_place() -> None:
    weights = np.array([0.0, 3.0, -np.inf, -0.0, 3.0, 1e-40, -2.5, np.inf], np.float32)
    order = ordered(weights)
    assert order.tokens.tolist() == [7, 1, 4, 5, 0, 3, 6, 2]
    assert order.tie_term > 0
    assert order.tie_term == 2 * (2**3 - 2)


def test_the_leading_edge_is_the_members_up_to_the_extreme() -> None:
    weights = np.linspace(1, -1, 20).astype(np.float32)
    members = np.array([0, 1, 2, 15, 19], np.int32)
    (standing,) = each(ordered(weights), [members])
    assert (standing.ks, standing.leading) == (pytest.approx(3 / 5), 3)


def test_rank_sum_p_values_are_corrected_for_ties_as_scipy_s() -> None:
    generator = numpy_generator(0, "rank sum", "ties")
    weights = np.round(generator.standard_normal(400), 1).astype(np.float32)
    (own,) = drawn_sets(generator, (60,), 400)
    weights[own] += np.float32(0.3)
    order = ordered(weights)
    assert order.tie_term > 0
    wide = weights.astype(float)
    expected = stats.mannwhitneyu(wide[own], np.delete(wide, own), method="asymptotic")
    (standing,) = each(order, [own])
    ours = rank_sum_p_values(np.array([standing.auc]), 60, 340, np.array([order.tie_term]))
    assert ours[0] == pytest.approx(expected.pvalue, rel=1e-9)


def correlated_unembedding(
    generator: np.random.Generator, sets: list[np.ndarray], d_model: int
) -> torch.Tensor:
    """Rows of different lengths; the tokens of each set have a direction in common, as in a trained
    model."""
    rows = generator.standard_normal((TOKENS, d_model)) * generator.gamma(4, 0.25, (TOKENS, 1))
    for own in sets:
        rows[own] += generator.standard_normal(d_model)
    return torch.from_numpy(rows).float()


@pytest.mark.parametrize("common", [False, True])
def test_p_values_of_random_directions_are_uniform(common: bool) -> None:
    generator = numpy_generator(0, "uniform", str(common))
    members = drawn_sets(generator, (6, 25, 90, 350))
    unembedding = correlated_unembedding(generator, members if common else [], 64)
    sets = as_sets(members)
    table, null = (
        look_through(random_directions(n, 64, generator), unembedding, members, 5)
        for n in (1000, 4000)
    )
    tested = enrichment.p_values(table, null, sets, TOKENS)
    for place in range(len(sets)):
        assert stats.kstest(tested.directions[:, place], "uniform").pvalue > 1e-3
        assert np.mean(tested.directions[:, place] < 0.01) < 0.02
    # Random sets are another null: where tokens have something in common, it finds random
    # directions enriched.
    inflated = np.mean(tested.rank_sum[:, 2] < 0.01)
    assert inflated > 0.2 if common else inflated < 0.02


def test_p_values_of_random_sets_are_uniform() -> None:
    generator = numpy_generator(0, "uniform", "sets")
    weights = generator.standard_normal(TOKENS).astype(np.float32)
    members = drawn_sets(generator, (40,) * 2000)
    p_values = standings(ordered(weights), SetIndex.of(members, TOKENS))
    for p in (
        ks_p_values(p_values.ks, 40, TOKENS - 40),
        rank_sum_p_values(p_values.auc, 40, TOKENS - 40),
    ):
        assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_the_false_discovery_rate_holds_where_one_in_twenty_is_true() -> None:
    """Latents along random directions, one in twenty bent towards a set: of what is found, 5 % may
    be false."""
    shares, powers = [], []
    for world in range(4):
        generator = numpy_generator(0, "discoveries", world)
        members = drawn_sets(generator, (25, 40, 60, 90, 140))
        unembedding = correlated_unembedding(generator, members, 48)
        directions = random_directions(400, 48, generator)
        planted = np.zeros((400, 5), dtype=bool)
        for latent, place in zip(range(100), generator.integers(0, 5, 100), strict=True):
            towards = unembedding[members[place]].mean(0) - unembedding.mean(0)
            rest = [
                unembedding[own].mean(0) - unembedding.mean(0)
                for i, own in enumerate(members)
                if i != place
            ]
            basis = torch.linalg.qr(torch.stack(rest).T).Q
            clean = towards - basis @ (basis.T @ towards)  # towards this set and away from no other
            directions[latent] += 1.5 * clean / clean.norm()
            planted[latent, place] = True
        null = look_through(random_directions(800, 48, generator), unembedding, members, 5)
        table = look_through(directions, unembedding, members, 5)
        tested = enrichment.p_values(table, null, as_sets(members), TOKENS)
        called = q_values(tested.directions, "bh") <= 0.05
        stricter = q_values(tested.directions, "by") <= 0.05
        assert (stricter <= called).all()
        shares.append((called & ~planted).sum() / max(1, called.sum()))
        powers.append((called & planted).sum() / planted.sum())
    assert planted.mean() == pytest.approx(0.05)
    assert np.mean(shares) < 0.07
    assert np.mean(powers) > 0.5


def test_planted_token_classes_are_found_with_the_right_sign() -> None:
    generator = numpy_generator(0, "planted")
    members = drawn_sets(generator, (30, 60, 200))
    unembedding = correlated_unembedding(generator, members, 64)
    centred = unembedding - unembedding.mean(0)
    towards = torch.stack([centred[own].mean(0) for own in members])
    directions = torch.cat([towards, -towards, random_directions(200, 64, generator)])
    null = look_through(random_directions(1000, 64, generator), centred, members, 5)
    table = look_through(directions, centred, members, 5)
    sets, ids = as_sets(members), np.arange(TOKENS, dtype=np.int32)
    enriched = enrichment.enriched(
        table, enrichment.p_values(table, null, sets, TOKENS), sets, "directions", 0.01
    )
    enriched = enrichment.with_leading_edges(enriched, directions, centred, sets, ids)
    for place in range(3):
        for latent, sign in ((place, 1), (place + 3, -1)):
            first = enriched.filter(latent=latent).row(0, named=True)
            assert (first["set"], np.sign(first["ks"]), np.sign(first["effect"])) == (
                f"set_{place}",
                sign,
                sign,
            )
            assert first["leading_size"] > 0.7 * len(members[place])
            assert set(first["leading_edge"]) <= set(members[place].tolist())
            extreme = members[place][
                np.argmax(sign * (centred[members[place]] @ directions[latent]).numpy())
            ]
            assert first["leading_edge"][0] == extreme
    assert enriched.filter(enriched["latent"] >= 6).height <= 3


def test_topic_latents_are_enriched_for_their_topic_s_words_and_for_nothing_else() -> None:
    """The model is two embeddings of the words that follow each other; a topic's latent is where
    its words differ."""
    blocks = story_blocks(0, "sae", 2000, 64)
    tokens, topics, names = blocks.tokens, blocks.labels["topic"], blocks.label_names["topic"]
    tokenizer = tales_tokenizer()
    vocab = vocabulary(tokenizer, len(tokenizer))
    d_vocab, d_model = len(tokenizer), 64
    pairs = [(tokens[:, :-k] * d_vocab + tokens[:, k:]).ravel() for k in range(1, 7)]
    counts = (
        np.bincount(np.concatenate(pairs), minlength=d_vocab**2)
        .reshape(d_vocab, d_vocab)
        .astype(np.float32)
    )
    counts[:3] = counts[:, :3] = 0  # BOS and its like
    expected = (counts.sum(1, keepdims=True) + 1) * (counts.sum(0) + 1) / counts.sum()
    left, strength, right = svds(np.log1p(counts / expected), d_model, v0=np.ones(d_vocab))
    reads, writes = (side * np.sqrt(strength) for side in (left, right.T))
    x, topic = reads[tokens[:, 1:]].astype(np.float64), topics[:, 1:]
    latents = np.stack(
        [x[topic == i].mean(0) - x[topic != i].mean(0) for i in range(1, len(names))]
    )
    generator = numpy_generator(0, "topics")
    directions = torch.cat(
        [torch.from_numpy(latents).float(), random_directions(100, d_model, generator)]
    )
    unembedding = torch.from_numpy(writes - writes.mean(0)).float()
    files = read_set_files([ROOT / "workflow/sets/tales.yaml"])
    sets = [
        token_set
        for token_set in token_sets(vocab, TokenSetSelection().kinds, 5, files)
        if not token_set.left_out
    ]
    members = [token_set.members for token_set in sets]
    null = look_through(random_directions(1000, d_model, generator), unembedding, members, 5)
    table = look_through(directions, unembedding, members, 5)
    tested = enrichment.p_values(table, null, sets, d_vocab)
    enriched = enrichment.enriched(table, tested, sets, "directions", 0.05)
    raised = enriched.filter(pl.col("latent") < 9, pl.col("effect") > 0)
    own = {token_set.name: set(token_set.members.tolist()) for token_set in sets}
    for latent, name in enumerate(names[1:]):
        of_the_topic = [
            other for other in own if len(own[other] & own[name]) > len(own[other]) / 2
        ]  # accents are French
        found_sets = raised.filter(pl.col("latent") == latent)["set"].to_list()
        assert found_sets[0] == name
        assert set(found_sets) <= set(of_the_topic)
    assert len(sets) > 35
    assert enriched.filter(pl.col("latent") >= 9).height <= 5


def test_the_unweighted_score_of_gene_sets_is_the_statistic_and_weights_follow_the_definition() -> (
    None
):
    generator = numpy_generator(0, "gsea")
    weights = generator.standard_normal(TOKENS).astype(np.float32)
    (own,) = drawn_sets(generator, (50,))
    (standing,) = each(ordered(weights), [own])
    assert gsea.score(weights, own, 0.0) == pytest.approx(standing.ks, abs=1e-9)
    order = np.argsort(-weights, kind="stable")
    hit = np.isin(order, own)
    gain = np.abs(weights[order] - weights.mean()) ** 1.5 * hit
    running = np.cumsum(gain / gain.sum() - ~hit / (~hit).sum())
    expected = running[np.argmax(np.abs(running))]
    assert gsea.score(weights, own, 1.5) == pytest.approx(expected, abs=1e-6)


def test_permutation_p_values_of_random_sets_are_uniform_and_of_planted_ones_small() -> None:
    generator = numpy_generator(0, "permutations")
    weights = generator.standard_normal(TOKENS).astype(np.float32)
    members = drawn_sets(generator, (30,) * 150)
    tested = [
        gsea.permuted(weights, own, 1.0, 99, numpy_generator(0, "one", i))
        for i, own in enumerate(members)
    ]
    assert stats.kstest([tested_set.p for tested_set in tested], "uniform").pvalue > 1e-3
    best = np.argsort(-weights)[:30].astype(np.int32)
    planted = gsea.permuted(weights, best, 1.0, 99, numpy_generator(0, "best"))
    assert planted.p < 0.03
    assert planted.normalised > 2
