"""Latents are chosen by how specifically they tell a goal's texts; the truth is planted in the
counts of tokens."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
import pytest
import torch
from steered import HOOK, tiny_lm, tiny_sae

from saeflow.analyses.steering.choice import (
    CANDIDATES_SCHEMA,
    RESAMPLES,
    TARGETS_SCHEMA,
    LatentChoices,
    _deal,
    choose_latents,
)
from saeflow.analyses.steering.examples import read_examples
from saeflow.analyses.steering.specificity import PREVALENCE, Draw, GoalTexts, specificity
from saeflow.errors import SaeflowError
from saeflow.models.running import capture
from saeflow.saes.subject import Subject

GOALS = ("anger", "love", "wedding")
LATENTS, TEXTS, TOKENS, OWN = (
    40,
    10,
    12,
    4,
)  # of the tokens of a positive text OWN are particular to its goal


def planted(
    rates: dict[str, dict[int, tuple[float, float]]], seed: int = 0
) -> dict[str, GoalTexts]:
    """Texts of all goals: latents fire by goal at ``(rate on its own tokens, rate on the others of
    its texts)``, and on 2 % of all other tokens."""
    generator = np.random.default_rng(seed)

    def fires(kind: int, goal: str, n: int) -> np.ndarray:
        chance = np.full(LATENTS, 0.02)
        for latent, both in rates.get(goal, {}).items():
            chance[latent] = both[kind]
        return generator.binomial(n, chance, size=(TEXTS, LATENTS)).astype(float)

    texts = {}
    for goal in GOALS:
        own, rest, off = fires(0, goal, OWN), fires(1, goal, TOKENS - OWN), fires(1, "", TOKENS)
        sizes = np.full(TEXTS, float(TOKENS))
        means = (own + rest) / TOKENS, off / TOKENS
        texts[goal] = GoalTexts(
            own, np.full(TEXTS, float(OWN)), own + rest, sizes, off, sizes, *means
        )
    return texts


def chosen(
    texts: dict[str, GoalTexts], density: np.ndarray | None = None, **settings: object
) -> LatentChoices:
    density = np.full(LATENTS, 0.02) if density is None else density
    count = settings.pop("count", 1)
    return choose_latents(texts, density, count, np.random.default_rng(1), **settings)  # type: ignore[arg-type]


def targets(choices: LatentChoices) -> dict[str, list[int]]:
    return {goal: list(choice.weights) for goal, choice in choices.by_goal.items()}


def test_the_score_is_the_f1_of_firing_on_a_text_with_the_stated_share_of_the_goal() -> None:
    texts = planted({"anger": {3: (0.8, 0.1)}, "love": {3: (0.3, 0.3)}})
    density = np.linspace(0.0, 0.2, LATENTS)
    measured = specificity(
        "anger", texts, {name: Draw.once(own) for name, own in texts.items()}, density
    )
    own, others = texts["anger"], [texts["love"], texts["wedding"]]
    for latent in (3, 7, 39):
        recall = own.hits[:, latent].sum() / (TEXTS * OWN)
        neutral = own.negative_fired[:, latent].sum() / (TEXTS * TOKENS)
        other = sum(each.positive_fired[:, latent].sum() for each in others) / (2 * TEXTS * TOKENS)
        # a million tokens, of which a share is on the goal
        hit, false = (
            1e6 * PREVALENCE * recall,
            1e6 * (1 - PREVALENCE) * max(neutral, other, density[latent]),
        )
        precision = hit / (hit + false) if hit + false else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        more = own.positive_means[:, latent].mean() > own.negative_means[:, latent].mean()
        assert measured.score[latent] == pytest.approx(f1 if more else 0.0)
        assert (measured.recall[latent], measured.neutral[latent], measured.others[latent]) == (
            pytest.approx(recall),
            pytest.approx(neutral),
            pytest.approx(other),
        )


@pytest.mark.parametrize("seed", range(5))
def test_the_planted_latent_of_every_goal_is_chosen_for_sure(seed: int) -> None:
    choices = chosen(
        planted(
            {"anger": {3: (0.9, 0.02)}, "love": {5: (0.7, 0.02)}, "wedding": {8: (0.8, 0.02)}}, seed
        )
    )
    assert targets(choices) == {"anger": [3], "love": [5], "wedding": [8]}
    assert choices.targets["chosen"].min() > 0.9
    assert choices.targets["held_out_neutral"].min() > 0.9
    assert choices.targets["margin"].min() > 0.1
    assert set(choices.targets["shared_with"]) == {""}


def test_a_latent_that_fires_on_a_goals_own_tokens_is_preferred_to_one_that_reads_its_context() -> (
    None
):
    # latent 1 fires more over the whole text, but on tokens that neutral texts have, too
    texts = planted({"anger": {1: (0.1, 0.9), 3: (0.8, 0.02)}})
    assert texts["anger"].difference[1] > texts["anger"].difference[3]
    assert targets(chosen(texts))["anger"] == [3]


def test_a_latent_of_all_goals_or_of_the_whole_corpus_is_not_preferred_to_one_of_the_goal() -> None:
    everywhere = {goal: {1: (1.0, 0.5)} for goal in GOALS}
    everywhere["love"][5] = (0.5, 0.02)
    assert targets(chosen(planted(everywhere), shared=True))["love"] == [5]
    dense = np.full(LATENTS, 0.02)
    dense[1] = 0.4
    texts = planted({"love": {1: (1.0, 0.02), 5: (0.5, 0.02)}})
    assert targets(chosen(texts))["love"] == [1]
    assert targets(chosen(texts, dense))["love"] == [5]


def test_a_latent_of_one_word_is_not_preferred_to_one_of_many_however_rare_it_is() -> None:
    density = np.full(LATENTS, 0.02)
    density[9] = 0.0
    texts = planted({"love": {5: (0.7, 0.02)}})
    for part in (texts["love"].hits, texts["love"].positive_fired, texts["love"].negative_fired):
        part[:, 9] = 0
    texts["love"].hits[0, 9] = texts["love"].positive_fired[0, 9] = 1
    assert targets(chosen(texts, density))["love"] == [5]


def test_no_two_goals_get_a_latent_in_common_unless_the_study_says_so() -> None:
    both = {"anger": {3: (0.95, 0.02), 4: (0.16, 0.0)}, "love": {3: (0.95, 0.02)}}
    texts = planted(both)
    apart = chosen(texts)
    assert len({latent for own in targets(apart).values() for latent in own}) == len(GOALS)
    assert targets(apart)["love"] == [3], "anger has another that serves it nearly as well"
    assert targets(apart)["anger"] == [4]
    assert apart.targets.filter(goal="anger")["rank"].item() == 2
    together = chosen(texts, shared=True)
    assert targets(together)["anger"] == targets(together)["love"] == [3]
    assert dict(together.targets.select("goal", "shared_with").iter_rows()) == {
        "anger": "love",
        "love": "anger",
        "wedding": "",
    }


def test_latents_are_dealt_so_that_the_sum_of_scores_is_the_largest_there_is() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        scores = dict(zip("abcd", generator.random((4, 7)) ** 3, strict=True))
        dealt = _deal(scores, 1, (), shared=False)
        best = max(
            sum(row[latent] for row, latent in zip(scores.values(), order, strict=True))
            for order in permutations(range(7), 4)
        )
        assert sum(scores[name][own[0]] for name, own in dealt.items()) == pytest.approx(best)


def test_a_choice_between_latents_that_are_alike_is_told_as_unsure() -> None:
    alike = {"anger": dict.fromkeys((3, 4, 5, 6), (0.6, 0.02))}
    table = chosen(planted(alike)).targets.filter(goal="anger")
    assert table["chosen"].item() < 0.8
    assert table["margin"].item() < 0.1
    nothing = chosen(planted({})).targets
    assert nothing["chosen"].max() < 0.6
    # Texts that had no part in the choice do not tell a latent that was chosen for noise from
    # others.
    assert nothing["held_out_neutral"].mean() == pytest.approx(0.5, abs=0.12)
    assert nothing["held_out_others"].mean() == pytest.approx(0.5, abs=0.12)


def test_shares_of_resamples_are_those_of_a_latent_and_sum_to_what_each_goal_gets() -> None:
    texts = planted({"anger": {3: (0.9, 0.02), 4: (0.8, 0.02)}})
    for count in (1, 2):
        table = chosen(texts, count=count).by_goal["anger"].candidates
        assert dict(table.schema) == CANDIDATES_SCHEMA
        assert table["score"].is_sorted(descending=True)
        assert (table["chosen"] * RESAMPLES % 1).max() < 1e-9
        assert 0.9 * count < table["chosen"].sum() <= count + 1e-9
    assert targets(chosen(texts, count=2))["anger"] == [3, 4]
    assert sum(chosen(texts, count=2).by_goal["anger"].weights.values()) == pytest.approx(1)


def test_latents_that_a_goal_names_are_taken_and_no_other_goal_gets_them() -> None:
    texts = planted({"anger": {3: (0.9, 0.02)}, "love": {5: (0.7, 0.02)}})
    choices = chosen(texts, listed={"wedding": {3: 0.5, 17: -0.5}})
    assert choices.by_goal["wedding"].weights == {3: 0.5, 17: -0.5}
    assert targets(choices)["anger"] != [3]
    rows = choices.targets.filter(goal="wedding")
    assert rows["source"].to_list() == ["goal", "goal"]
    assert rows["chosen"].null_count() == 2, "nothing was chosen, so nothing is sure"
    assert dict(choices.targets.schema) == TARGETS_SCHEMA
    named_by_two = chosen(texts, listed={"wedding": {3: 1.0}, "love": {3: 1.0}}).targets
    assert named_by_two.filter(pl.col("shared_with") != "")["goal"].to_list() == ["love", "wedding"]
    missing = chosen(
        texts, listed={goal: {LATENTS + 5: 1.0} for goal in GOALS}
    )  # refused where vectors are built
    assert missing.targets["score"].null_count() == 3


def test_a_goal_without_others_is_told_from_neutral_texts_and_the_corpus() -> None:
    alone = {"anger": planted({"anger": {3: (0.9, 0.02)}})["anger"]}
    choices = chosen(alone)
    assert targets(choices) == {"anger": [3]}
    assert choices.targets["others"].item() == 0
    assert choices.targets["held_out_others"].null_count() == 1


def test_goals_that_ask_for_more_latents_than_tell_them_apart_are_refused() -> None:
    texts = planted({})
    silent = texts["love"]._replace(positive_means=np.zeros((TEXTS, LATENTS)))
    with pytest.raises(
        SaeflowError, match="goal love: 0 latents tell its examples from other texts and"
    ):
        chosen({**texts, "love": silent})


def test_tokens_that_the_negative_texts_lack_are_particular_to_the_positive_ones() -> None:
    lm, sae = tiny_lm(), tiny_sae()
    positive, negative = ["the cat ran", "a cat on the mat"], ["the dog ran", "a dog on the tree"]
    on, off = (
        read_examples(Subject(lm, sae, HOOK, 0), positive, against=negative),
        read_examples(Subject(lm, sae, HOOK, 0), negative),
    )
    assert on.particular.tolist() == [1, 2]  # cat; cat, mat
    assert on.tokens.tolist() == [3, 5]
    ids = [lm.tokenize(text) for text in positive]
    latents = [sae.encode(capture(lm, torch.tensor([own]), [HOOK])[HOOK][0, 1:]) > 0 for own in ids]
    assert torch.equal(on.hits[0], latents[0][1].int())
    assert torch.equal(on.hits[1], latents[1][[1, 4]].sum(0).int())
    assert torch.equal(on.fired[1], latents[1].sum(0).int())
    same = GoalTexts.of(read_examples(Subject(lm, sae, HOOK, 0), positive, against=positive), off)
    assert np.array_equal(same.hits, same.positive_fired), "where no token is particular, all count"
