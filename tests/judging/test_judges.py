"""Judges: word lists, the lexical judge, the planted judge, scores, the goals that ship with the
workflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from checkout import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

from saeflow.config.goal import Goal
from saeflow.config.reading import read_goal
from saeflow.config.sections import Judge
from saeflow.corpora import tales
from saeflow.decoding.completion import Completion
from saeflow.errors import SaeflowError
from saeflow.judging import scores as scores_module
from saeflow.judging.judges import one_by_one
from saeflow.judging.lexical import (
    NO_LOSS,
    NO_SCALE,
    NOT_ITS_PROMPT,
    Calibration,
    fluency,
    judge_lexical,
    variety,
)
from saeflow.judging.losses import model_losses
from saeflow.judging.planted import judge_planted
from saeflow.judging.scores import SCORES_SCHEMA, checked, score_completions
from saeflow.judging.verdicts import Losses, Question, Verdict
from saeflow.judging.words import distinct_bigram_share, matched_share, units, word_pattern
from saeflow.models.families import FAMILIES
from saeflow.models.language_model import LanguageModel

STORIES = sorted((ROOT / "workflow" / "goals" / "stories").glob("*.yaml"))
LEXICAL = Judge(kind="lexical", saturation=0.25)


def goal(words: Sequence[str] = ("sea",), topic: str = "london") -> Goal:
    return Goal(
        title="The sea",
        criterion="It is about the sea.",
        topic=topic,
        positive=["a", "b"],
        negative=["c", "d"],
        words=list(words),
    )


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "text", "named", "of"),
    [
        ("dog", "the dog ran", 1, 3),
        ("dog", "the dogs ran", 0, 3),
        ("dog*", "the dogs ran", 1, 3),
        ("dog*", "the dog ran", 1, 3),
        ("dog*", "a hotdog stand", 0, 3),
        ("dog", "The DOG. A Dog!", 2, 4),
        ("DOG", "a dog", 1, 2),
        ("dog", '(dog), "dog" -dog- dog: dog;', 5, 5),
        ("dog", "the dog's tail", 1, 3),
        ("dog", "the dog’s tail", 1, 3),
        ("can", "i can't see", 0, 3),
        ("won", "we won but you won't", 1, 5),
        ("ice cream", "some ice cream now", 2, 4),
        ("ice cream", "some ice   \n cream now", 2, 4),
        ("ice cream", "ice. cream", 0, 2),
        ("ice cream", "ice and cream", 0, 3),
        ("ice cream", "nice cream", 0, 2),
        ("ice cream*", "two ice creams", 2, 3),
        ("sea", "season seashell sea", 1, 3),
        ("sea", "sea-side", 1, 2),
        ("sea", "under_sea", 0, 1),
        ("café", "the Café", 1, 2),
        ("café", "the cafe\u0301 closed", 1, 3),
        ("cafe\u0301", "the CAFÉ closed", 1, 3),
        ("cafe", "the café", 0, 2),
        ("été*", "les étés", 1, 2),
        ("amour", "l'amour toujours", 1, 2),
        ("straße", "die STRASSE", 1, 2),
        ("мир", "Мир и мирный", 1, 3),
        ("мир*", "Мир и мирный", 2, 3),
        ("c++", "a c++ book", 1, 3),
        ("sea", "", 0, 0),
        ("sea", "!!! ...", 0, 0),
        ("sea", "7 seas and 1 sea", 1, 5),
    ],
)
def test_entries_match_whole_words(entry: str, text: str, named: int, of: int) -> None:
    assert matched_share(text, word_pattern([entry])) == (named / of if of else 0.0)


def test_words_of_overlapping_entries_count_once() -> None:
    pattern = word_pattern(["wedding dress", "dress shop", "dress", "wed*"])
    assert matched_share("a wedding dress shop here", pattern) == 3 / 5
    assert matched_share("dress dress", pattern) == 1.0


@pytest.mark.parametrize("entries", [[], [""], ["*"], ["se*a"], ["sea **"], ["ice *"]])
def test_entries_that_mean_nothing_are_refused(entries: list[str]) -> None:
    with pytest.raises(SaeflowError, match="words"):
        word_pattern(entries)


# --- lexical --------------------------------------------------------------------------------------


RAN_HOME = "I think the dog ran home to eat"


def loss_of(fluent: str, **losses: float) -> Losses:
    """2 nats for one fluent text, 5 for all others, and the given loss for texts that hold a given
    word."""

    def of_completions(completions: Sequence[Completion]) -> list[float]:
        given = [
            [loss for word, loss in losses.items() if word in completion.text]
            for completion in completions
        ]
        return [
            held[0] if held else 2.0 if c.text == fluent else 5.0
            for c, held in zip(completions, given, strict=True)
        ]

    return of_completions


def lexical(
    texts: Sequence[str],
    criterion: str,
    prompt: str = "I think",
    losses: Losses | None = None,
    unsteered: Sequence[str] = (RAN_HOME,),
) -> list[Verdict]:
    question = Question(
        goal(), criterion, LEXICAL, [Completion(prompt, text) for text in unsteered], losses
    )
    return judge_lexical([Completion(prompt, text) for text in texts], question)


def test_behaviour_is_the_share_of_named_words_of_the_continuation_over_saturation() -> None:
    texts = ["I think of the sea a lot and more now", "I think sea sea", "I think not", "I think"]
    assert lexical(texts, "behaviour") == [
        Verdict(pytest.approx((1 / 8) / 0.25)),
        Verdict(1.0),
        Verdict(0.0),
        Verdict(0.0),
    ]
    assert lexical(["the sea, oh"], "behaviour", prompt="the sea") == [Verdict(0.0)]
    assert lexical([" the sea is a sea"], "behaviour", prompt="the sea ") == [Verdict(1.0)]


def test_a_text_without_its_prompt_has_a_reason_and_no_score() -> None:
    for criterion in ("behaviour", "coherence"):
        assert lexical(["We think of the sea"], criterion, losses=loss_of(RAN_HOME)) == [
            Verdict(None, NOT_ITS_PROMPT)
        ]


def by_disorder(completions: Sequence[Completion]) -> list[float]:
    """A loss that is the larger the more neighbours are out of alphabetical order."""
    disorder = []
    for completion in completions:
        words = (completion.continuation or "").split()
        disorder.append(1.0 + 4.0 * np.mean([a > b for a, b in pairwise(words)]))
    return disorder


def test_coherence_falls_with_the_loss_within_its_bounds() -> None:
    letters = np.random.default_rng(0).choice(list("abcdefghijkl"), (20, 10))
    texts = [
        "I think a b c d e f",
        "I think b a c d e f",
        "I think b a d c e f",
        "I think f e d c b a",
    ]
    ordered = [f"I think {' '.join(sorted(words))}" for words in letters]
    scores = [
        verdict.score
        for verdict in lexical(texts, "coherence", losses=by_disorder, unsteered=ordered)
    ]
    assert scores[0] == 1.0
    assert scores[3] == 0.0
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    assert len(set(scores)) == 4


def test_fluency_is_monotone_and_bounded() -> None:
    calibration = Calibration(fluent=2.0, shuffled=5.0, variety=0.9)
    losses = np.linspace(0, 12, 200)
    scores = np.array([fluency(loss, calibration) for loss in losses])
    assert np.all(np.diff(scores) <= 0)
    assert set(scores[losses <= 2.0]) == {1.0}
    assert set(scores[losses >= 5.0]) == {0.0}
    assert fluency(3.5, calibration) == pytest.approx(0.5)


@pytest.mark.parametrize("loop", [" sea" * 24, "!" * 24, " the sea," * 12])
def test_repetition_is_not_coherent_however_low_its_loss(loop: str) -> None:
    losses = loss_of(RAN_HOME, **{loop: 0.01})
    fluent, repeated = lexical([RAN_HOME, f"I think{loop}"], "coherence", losses=losses)
    assert fluent.score == 1.0
    assert repeated.score is not None
    assert repeated.score < 0.1


def test_variety_is_relative_to_unsteered_text_and_at_most_one() -> None:
    calibration = Calibration(2.0, 5.0, 0.8)
    assert variety(units("a b a b a b"), calibration) == pytest.approx(2 / 5 / 0.8)
    assert variety(units("a b c d"), calibration) == 1.0
    assert distinct_bigram_share(["word"]) == 1.0
    assert units("Don't stop, now!") == ["don't", "stop", ",", "now", "!"]


def test_losses_that_are_no_numbers_are_reasons_and_not_zeros() -> None:
    verdicts = lexical(
        ["I think lost", RAN_HOME], "coherence", losses=loss_of(RAN_HOME, lost=float("nan"))
    )
    assert verdicts == [Verdict(None, NO_LOSS), Verdict(1.0)]
    assert lexical([RAN_HOME], "coherence", losses=loss_of(RAN_HOME, home=2.0)) == [
        Verdict(None, NO_SCALE)
    ]


def test_an_empty_continuation_is_judged() -> None:
    verdicts = lexical(
        ["I think", "I think \n\n"], "coherence", losses=by_disorder, unsteered=["I think a b c d"]
    )
    assert verdicts == [Verdict(0.0), Verdict(0.0)]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (Question(goal(words=()), "behaviour", LEXICAL), "no words"),
        (Question(goal(), "coherence", LEXICAL), "give the judge the model"),
        (Question(goal(), "coherence", LEXICAL, (), by_disorder), "no unsteered completion"),
    ],
)
def test_a_lexical_judge_says_what_it_lacks(question: Question, says: str) -> None:
    with pytest.raises(SaeflowError, match=says):
        judge_lexical([Completion("I think", "I think so")], question)


# --- the model's loss -----------------------------------------------------------------------------


class Letters:
    """A tokenizer of one token per letter."""

    bos_token_id, eos_token_id = 0, None

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [1 + ord(letter) % 40 for letter in text]}


def _llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=41, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_the_models_loss_is_that_of_the_continuation_alone_in_any_batch() -> None:
    lm = LanguageModel(_llama(), Letters(), FAMILIES["llama"])  # type: ignore[arg-type]
    completions = [
        Completion("ab", "abcde"),
        Completion("", "xyz"),
        Completion("abc", "abcdefghijkl"),
        Completion("q", "q"),
    ]
    losses = model_losses(lm, batch=3)(completions)
    for completion, loss in list(zip(completions, losses, strict=True))[:3]:
        tokens = lm.tokenize(completion.text)
        first = len(lm.tokenize(completion.prompt))
        log_p = lm.model(torch.tensor([tokens])).logits[0].detach().double().log_softmax(-1)
        expected = -np.mean([float(log_p[i - 1, tokens[i]]) for i in range(first, len(tokens))])
        assert loss == pytest.approx(expected, abs=1e-5)
    assert np.isnan(losses[3])
    assert model_losses(lm, batch=1)(completions)[:3] == pytest.approx(losses[:3], abs=1e-5)


# --- planted --------------------------------------------------------------------------------------

TEXTS = ["I think the queen met him in london .", "the the of", ""]


def test_the_planted_judge_is_the_grammars_own_verdict() -> None:
    completions = [Completion("I think", text) for text in TEXTS]
    for topic in [name for name in tales.TOPICS if name != "neutral"]:
        verdicts = judge_planted(completions, Question(goal(topic=topic), "behaviour", Judge()))
        assert verdicts == [Verdict(tales.behaviour(text)[topic]) for text in TEXTS]
    verdicts = judge_planted(completions, Question(goal(), "coherence", Judge()))
    assert verdicts == [Verdict(tales.coherence(text)) for text in TEXTS]


@pytest.mark.parametrize("topic", ["chess", "neutral"])
def test_the_planted_judge_refuses_a_topic_that_is_no_behaviour(topic: str) -> None:
    with pytest.raises(SaeflowError, match=f"no topic '{topic}'"):
        judge_planted([], Question(goal(topic=topic), "behaviour", Judge()))


def test_judging_tales_needs_no_torch() -> None:
    code = "import sys, saeflow.judging.scores, saeflow.analyses.steering.summary; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


# --- scores ---------------------------------------------------------------------------------------


def completions_of(texts: Sequence[str | None]) -> pl.DataFrame:
    rows = range(len(texts))
    return pl.DataFrame(
        {
            "completion_id": [f"id{row}" for row in rows],
            "prompt": ["I think" for _ in rows],
            "text": list(texts),
            "scale_index": [0 for _ in rows],
        },
        schema_overrides={"text": pl.String},
    )


def test_scores_have_one_row_per_completion_and_criterion() -> None:
    table = score_completions(
        completions_of(["I think b a", None, "We a b", "I think a b c sea"]),
        goal(),
        LEXICAL,
        losses=by_disorder,
    )
    assert dict(table.schema) == SCORES_SCHEMA
    assert table["completion_id"].to_list() == [f"id{row}" for row in range(4)] * 2
    assert table["criterion"].to_list() == ["behaviour"] * 4 + ["coherence"] * 4
    assert table["reason"].to_list()[:4] == [None, "there is no text", NOT_ITS_PROMPT, None]
    assert table["score"].is_null().to_list() == table["reason"].is_not_null().to_list()
    assert table["score"].to_list()[:4] == [0.0, None, None, 1.0]
    assert set(table["judge"]) == {"lexical"}


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict(0.5), Verdict(0.5)),
        (Verdict(0.0), Verdict(0.0)),
        (Verdict(None, "refused"), Verdict(None, "refused")),
        (Verdict(None), Verdict(None, "the judge gave no reason")),
        (Verdict(float("nan")), Verdict(None, "the score nan is not between 0 and 1")),
        (Verdict(1.5), Verdict(None, "the score 1.5 is not between 0 and 1")),
        (Verdict(-0.11), Verdict(None, "the score -0.11 is not between 0 and 1")),
    ],
)
def test_a_failed_verdict_never_becomes_a_zero(verdict: Verdict, expected: Verdict) -> None:
    assert checked(verdict) == expected


def test_a_judge_that_drops_an_answer_is_a_defect_and_two_equal_ids_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = completions_of(["I think a", "I think b"])
    with pytest.raises(SaeflowError, match="same completion_id"):
        score_completions(pl.concat([table, table]), goal(), LEXICAL)
    dropping = one_by_one(lambda completions, _: [Verdict(1.0)] * (len(completions) - 1))
    monkeypatch.setattr(scores_module, "judge_function", lambda kind: dropping)
    with pytest.raises(SaeflowError, match="answered 1 times to 2"):
        score_completions(table, goal(), LEXICAL)


# --- goals ----------------------------------------------------------------------------------------


def test_there_are_six_goals_for_stories() -> None:
    assert [path.stem for path in STORIES] == [
        "animals",
        "food",
        "magic",
        "sadness",
        "sea",
        "weather",
    ]


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_goals_examples_tell_the_behaviour_apart(path: Path) -> None:
    goal_read = read_goal(path)
    pattern = word_pattern(goal_read.words)
    assert len(goal_read.positive) == len(goal_read.negative) == 12
    assert 25 <= len(goal_read.words) <= 60
    assert min(matched_share(text, pattern) for text in goal_read.positive) > 0.05
    assert max(matched_share(text, pattern) for text in goal_read.negative) == 0.0
    lengths = [
        np.mean([len(text.split()) for text in texts])
        for texts in (goal_read.positive, goal_read.negative)
    ]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.5)


def test_the_goals_lists_do_not_overlap() -> None:
    patterns = {path.stem: word_pattern(read_goal(path).words) for path in STORIES}
    for path in STORIES:
        entries = [word.removesuffix("*") for word in read_goal(path).words]
        for other, pattern in patterns.items():
            if other != path.stem:
                assert [entry for entry in entries if matched_share(entry, pattern)] == []
