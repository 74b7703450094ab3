"""The study's own model answers by its log-odds, each question as if it stood alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkout import ROOT
from steered import HOOK, tiny_sae
from tiny_models import chat_language_model, tiny_language_model

from saeflow.analyses.labels.asking import LocalAsker, Question, next_logits
from saeflow.analyses.labels.firing import peaks
from saeflow.analyses.labels.prompts import read_prompts
from saeflow.errors import SaeflowError
from saeflow.models.running import capture
from saeflow.saes.subject import Subject

PROMPTS = read_prompts(ROOT / "workflow/labels/asking.yaml")
ROWS = [[0, 3, 4, 5, 6], [0, 3, 4, 7], [0, 3, 4, 5, 6, 8, 9]]


@pytest.mark.parametrize("rows", [ROWS, [[0, 3], [0, 3], [0, 4]], [[0], [0, 3]], ROWS[:1]])
def test_rows_that_share_their_opening_say_what_each_says_alone(rows: list[list[int]]) -> None:
    lm = tiny_language_model("llama")
    together = next_logits(lm, rows)
    for row, ours in zip(rows, together, strict=True):
        alone = lm.model(torch.tensor([row]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chats", [True, False])
def test_every_kind_of_question_is_answered(chats: bool) -> None:
    lm = (
        chat_language_model()
        if chats
        else tiny_language_model("llama", max_position_embeddings=512)
    )
    if chats:
        lm.model.config.max_position_embeddings = 512
    asker = LocalAsker(lm, PROMPTS, 0, new_tokens=4)
    passages = ("the cat sat", "a dog ran", "the mat", "a tree", "the dog")
    asked = [
        Question("detection", "cat", passages),
        Question("fuzzing", "cat", passages),
        Question("intruder", "", passages),
        Question("generation", "cat", ()),
        Question("generation", "cat", (), 1),
        Question("explanation", "", passages),
    ]
    replies = asker.tell(asked)
    for answer in replies[:2]:
        assert answer.values is not None
        assert len(answer.values) == len(passages)
    assert replies[2].values is not None
    assert replies[2].values[0] in {1.0, 2.0, 3.0, 4.0, 5.0}
    alone = asker.tell([Question("detection", "cat", (passages[1],))])[0]
    assert alone.values is not None
    assert replies[0].values is not None
    assert alone.values[0] == pytest.approx(replies[0].values[1], abs=1e-4)
    assert [answer.text for answer in asker.tell(asked)] == [answer.text for answer in replies]
    assert all(answer.text or answer.reason for answer in replies[3:])


def test_peaks_are_the_largest_activations_of_a_text_without_bos() -> None:
    lm, sae = tiny_language_model("llama"), tiny_sae()
    texts = ["the cat sat on the mat", "", "dog"]
    ours = peaks(Subject(lm, sae, HOOK, 0), texts, [4, 9])
    for number, text in enumerate(texts):
        tokens = lm.tokenize(text)
        if len(tokens) < 2:
            assert (ours[number] == 0).all()
            continue
        states = capture(lm, torch.tensor([tokens]), [HOOK])[HOOK][0, 1:]
        expected = sae.encode(states)[:, torch.tensor([4, 9])].amax(0)
        torch.testing.assert_close(torch.tensor(ours[number]), expected)


def test_a_file_of_questions_that_lacks_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "asking.yaml").write_text("detection: {hosted: a, local: b}\n")
    with pytest.raises(SaeflowError, match=r"asking.yaml: explanation"):
        read_prompts(tmp_path / "asking.yaml")
    (tmp_path / "asking.yaml").write_text("a: [\n")
    with pytest.raises(SaeflowError, match="cannot be read as YAML"):
        read_prompts(tmp_path / "asking.yaml")


def test_a_question_that_does_not_fit_loses_passages_or_is_refused_by_the_key_to_change() -> None:
    lm = tiny_language_model("llama")  # a context of 64 tokens
    asker = LocalAsker(lm, PROMPTS, 0, new_tokens=4)
    assert asker.tell([Question("explanation", "", ("the cat sat on the mat",) * 40)])[0]
    long = " ".join(["cat"] * 80)
    for kind in ("detection", "explanation"):
        with pytest.raises(SaeflowError, match=r"labels.asked: .* 64; lower labels.passages"):
            asker.tell([Question(kind, "cat", (long,))])
