"""Methods in words: what they say, what is written behind it, how it is measured and compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
import torch
from scored_study import scored_study
from steered import HOOK, tiny_lm, unit_rows
from studies import study_config
from tiny_models import tiny_tokens

from saeflow.analyses.steering.capability import behind, capabilities, exam
from saeflow.analyses.steering.divergence import divergences_in_words
from saeflow.analyses.steering.io import SteeringVector
from saeflow.analyses.steering.prompting import (
    Words,
    complete_in_words,
    prompts_read,
    with_words,
    words_of,
)
from saeflow.analyses.steering.settings import Completions, Summary
from saeflow.analyses.steering.summary import summarise
from saeflow.config import Goal, Message, Question, Sampling
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.models.language_model import LanguageModel

GOAL = Goal(
    title="Cats",
    criterion="The text is about a cat.",
    positive=["the cat sat .", "a cat ran", "cat"],
    negative=["the dog sat .", "a dog ran"],
)
GREEDY = Completions(
    prompts=["I think", "the dog sat on"],
    samples=4,
    new_tokens=6,
    sampling=Sampling(temperature=0.0),
)
CAT = Words(examples=["the cat sat on the mat .", "a cat"])
WRITES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + WRITES
PASSES_OVER = (
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)


def with_template(template: str) -> LanguageModel:
    lm = tiny_lm()
    lm.tokenizer.chat_template = template
    return lm


def messages(*said: str) -> list[Message]:
    roles = ("system", "user") if len(said) > 1 else ("user",)
    return [
        Message(role=role, content=text)  # type: ignore[arg-type]
        for role, text in zip(roles, said, strict=True)
    ]


def in_brief(prompt: object) -> list[str]:
    assert isinstance(prompt, list)
    return [f"{message.role}: {message.content}" for message in prompt]


def test_an_instruction_is_the_goal_s_own_or_made_of_its_criterion() -> None:
    made = "Write so that this is true of your text: The text is about a cat."
    assert words_of("prompt", GOAL, 4) == Words(instruction=made)
    own = GOAL.model_copy(update={"instruction": "Write of cats."})
    assert words_of("prompt", own, 4).text == "Write of cats.\n\n"
    assert words_of("few_shot", GOAL, 2).text == "the cat sat .\n\na cat ran\n\n"
    assert words_of("few_shot", GOAL, 9).examples == GOAL.positive


def test_words_stand_in_front_of_text_with_an_empty_line_between() -> None:
    tokenizer = tiny_lm().tokenizer
    assert with_words("I think", Words("Be kind."), tokenizer) == "Be kind.\n\nI think"
    assert with_words("I think", Words(examples=["a", "b"]), tokenizer) == "a\n\nb\n\nI think"


def test_in_a_chat_an_instruction_is_the_system_message_or_ends_the_one_that_is_there() -> None:
    tokenizer = with_template(WRITES).tokenizer
    words = Words("Be kind.")
    alone = with_words(messages("Hi"), words, tokenizer)
    assert in_brief(alone) == ["system: Be kind.", "user: Hi"]
    both = with_words(messages("You write.", "Hi"), words, tokenizer)
    assert in_brief(both) == ["system: You write.\n\nBe kind.", "user: Hi"]


@pytest.mark.parametrize("template", [REFUSES, PASSES_OVER])
def test_a_template_without_system_messages_gets_it_from_the_user(template: str) -> None:
    tokenizer = with_template(template).tokenizer
    assert in_brief(with_words(messages("Hi"), Words("Be kind."), tokenizer)) == [
        "user: Be kind.\n\nHi"
    ]


def test_in_a_chat_examples_are_answers_behind_the_system_message() -> None:
    tokenizer = with_template(WRITES).tokenizer
    words = Words(examples=["A cat.", "Cats."])
    assert in_brief(with_words(messages("You write.", "Hi"), words, tokenizer)) == [
        "system: You write.",
        "user: Write a few words.",
        "assistant: A cat.",
        "user: Write a few words.",
        "assistant: Cats.",
        "user: Hi",
    ]


def greedy(lm: LanguageModel, tokens: Sequence[int], steps: int) -> list[int]:
    """What the library of the model writes behind tokens, by whole passes."""
    written = list(tokens)
    for _ in range(steps):
        with torch.no_grad():
            written.append(int(lm.model(torch.tensor([written])).logits[0, -1].argmax()))
        if written[-1] in lm.end_ids:
            return written[len(tokens) : -1]
    return written[len(tokens) :]


def test_completions_go_on_from_the_words_and_are_told_of_the_bare_prompt() -> None:
    lm = tiny_lm()
    completions = complete_in_words(lm, HOOK, CAT, GREEDY, 0, "cats", "few_shot")
    prompts = prompts_read(lm, CAT, GREEDY)
    assert prompts["prompt"].to_list() == GREEDY.prompts
    assert prompts["given"].to_list() == [CAT.text + str(prompt) for prompt in GREEDY.prompts]
    given = dict(prompts.select("prompt", "given_ids").iter_rows())
    assert len(completions) == 16
    for row in completions.iter_rows(named=True):
        bare = lm.tokenize(row["prompt"])
        assert row["prompt_ids"] == bare
        assert row["text"] == row["prompt"] + row["continuation"]
        assert (row["scale_index"], row["scale"]) in {(0, 0.0), (1, None)}
        read = bare if row["scale_index"] == 0 else given[row["prompt"]]
        assert row["continuation_ids"] == greedy(lm, read, 6)
    assert completions["completion_id"].n_unique() == 16


def log_probabilities(lm: LanguageModel, tokens: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(torch.tensor([list(tokens)])).logits[0].double().log_softmax(-1)


def test_divergence_is_that_of_predictions_behind_the_words_from_those_without() -> None:
    lm = tiny_lm()
    drawn = GREEDY.model_copy(update={"sampling": Sampling(temperature=1.0)})
    completions = complete_in_words(lm, HOOK, CAT, drawn, 0, "cats", "few_shot")
    prompts = prompts_read(lm, CAT, drawn)
    given = dict(prompts.select("prompt", "given_ids").iter_rows())
    for batch in (1, 5):
        kl = divergences_in_words(lm, completions, prompts, batch)["kl"].to_list()
        for row, measured in zip(completions.iter_rows(named=True), kl, strict=True):
            steps = len(row["continuation_ids"]) + row["ended"]
            if not steps:
                assert measured is None
                continue
            if row["scale"] == 0:
                assert measured == 0.0
                continue
            moved, usual = (
                log_probabilities(lm, [*opening, *row["continuation_ids"]])[
                    len(opening) - 1 : len(opening) - 1 + steps
                ]
                for opening in (given[row["prompt"]], row["prompt_ids"])
            )
            expected = (moved.exp() * (moved - usual)).sum(-1).mean()
            assert measured == pytest.approx(float(expected), abs=1e-4)


def test_capability_behind_words_counts_the_same_tokens_as_without() -> None:
    lm, blocks = tiny_lm(), tiny_tokens(3, 10).numpy()
    questions = [Question(question="the cat", answer="sat", others=["ran", "on the mat"])]
    vector = SteeringVector(unit_rows(1)[0], {"hook": HOOK, "goal": "cats", "method": "caa"})
    told_exam = behind(lm, CAT.text, blocks, questions)
    on_words = {"few_shot": told_exam}
    table = pl.concat(
        capabilities(lm, exam(lm, blocks, questions), [vector], {"caa": [0.0]}, on_words)
    )
    own = table.filter(method="few_shot")
    assert (
        own.filter(scale_index=0).drop("method").equals(table.filter(method="caa").drop("method"))
    )
    behind_words = own.filter(pl.col("scale").is_null())
    front = lm.tokenize(CAT.text)
    for item, block in enumerate(blocks.tolist()):
        tokens = [*front, *block[1:]]
        logs = log_probabilities(lm, tokens)
        losses = [-logs[at - 1, tokens[at]] for at in range(len(front), len(tokens))]
        assert len(losses) == len(block) - 1
        measured = behind_words.filter(measure="text_loss", item=item)["value"].item()
        assert measured == pytest.approx(float(np.mean(losses)), abs=1e-4)
    said = []
    for answer in ("sat", "ran", "on the mat"):
        prompt = lm.tokenize(f"{CAT.text}Question: the cat\nAnswer:")
        tokens = lm.tokenize(f"{CAT.text}Question: the cat\nAnswer: {answer}")
        logs = log_probabilities(lm, tokens)
        said.append(float(sum(logs[at - 1, tokens[at]] for at in range(len(prompt), len(tokens)))))
    odds = said[0] - np.log(np.exp(said[1:]).sum())
    measured = behind_words.filter(measure="choice_log_odds")["value"].item()
    assert measured == pytest.approx(odds, abs=1e-4)
    with pytest.raises(SaeflowError, match=r"steering\.prompting\.examples"):
        behind(lm, "the cat " * 40, blocks, [])


def told_study(best_unsteered: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Three methods, of which the third is in words: its second point has no scale."""

    def draw(rng: np.random.Generator, method: int, scale: int) -> float:
        high = best_unsteered and method == 2 and scale == 0
        return float(rng.uniform(0.9, 1.0) if high else rng.uniform(0, 0.8))

    completions, scores = scored_study(methods=3, draw=draw)
    in_words = pl.col("method") == "method2"
    completions = completions.filter(~in_words | (pl.col("scale_index") < 2)).with_columns(
        scale=pl.when(in_words & (pl.col("scale_index") == 1)).then(None).otherwise("scale")
    )
    return completions, scores.filter(
        pl.col("completion_id").is_in(completions["completion_id"].to_list())
    )


def test_a_method_in_words_is_taken_where_it_is_even_where_the_bare_prompt_is_better() -> None:
    completions, scores = told_study(best_unsteered=True)
    tables = summarise(completions, scores, Summary(bootstrap=100), 0)
    own = tables.best.filter(pl.col("method") == "method2", pl.col("goal") != "average")
    assert own["scale"].to_list() == [None, None]
    assert own["scale_index"].to_list() == own["in_sample_scale_index"].to_list() == [1, 1]
    assert (own["unsteered_product"] > own["product"]).all()
    chosen = tables.summary.filter(pl.col("method") == "method2", pl.col("selected"))
    assert chosen["scale"].null_count() == len(chosen) == 6
    pairs = tables.comparisons.filter(pl.col("other") == "method2")
    assert len(pairs) == 6
    assert pairs["difference"].null_count() == 0


def test_a_method_in_words_is_compared_at_the_cost_that_it_has() -> None:
    completions, scores = told_study()
    rng = np.random.default_rng(0)
    kl = completions.select("completion_id", kl=pl.Series(rng.random(len(completions))))
    settings = Summary(bootstrap=100)
    tables = summarise(completions, scores, settings, 0, kl)
    without = summarise(
        completions.filter(pl.col("method") != "method2"),
        scores.filter(~pl.col("completion_id").str.contains(r"^\d/2/")),
        settings,
        0,
        kl,
    )
    own = tables.matched.filter(pl.col("method") == "method2")
    others = tables.matched.filter(pl.col("method") != "method2")
    assert others.equals(without.matched)
    of_all = tables.summary.filter(pl.col("split") == "all", pl.col("method") == "method2")
    for goal in ("goal0", "goal1"):
        zero, told_point = of_all.filter(pl.col("goal") == goal).sort("scale_index").to_dicts()
        row = own.filter(goal=goal, cost="coherence").row(0, named=True)
        assert row["level"] == pytest.approx(told_point["coherence"] / zero["coherence"])
        assert row["behaviour"] == pytest.approx(told_point["behaviour"])
        assert row["behaviour_low"] < row["behaviour"] < row["behaviour_high"]
        ids = completions.filter(
            pl.col("goal") == goal, pl.col("method") == "method2", pl.col("scale").is_null()
        )
        moved = kl.join(ids, on="completion_id")["kl"].mean()
        assert own.filter(goal=goal, cost="kl")["level"].item() == pytest.approx(moved)
    average = own.filter(goal="average", cost="kl").row(0, named=True)
    rows = own.filter(pl.col("goal") != "average", pl.col("cost") == "kl")
    assert average["level"] == pytest.approx(rows["level"].mean())
    assert average["behaviour"] == pytest.approx(rows["behaviour"].mean())


def test_methods_in_words_are_asked_for_apart_from_those_with_vectors() -> None:
    words = {"steering.prompting": {"methods": ["few_shot"], "examples": 1}}
    study = check_any_study(study_config("full", words))
    assert study.steering.methods[-1] == "few_shot"
    assert "few_shot" not in study.steering.vectors.methods
    with pytest.raises(SaeflowError, match=r"steering\.vectors\.methods"):
        check_any_study(study_config("full", {"steering.vectors": {"methods": ["prompt"]}}))
