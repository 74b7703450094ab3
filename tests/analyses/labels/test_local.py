"""The study's own model answers by its log-odds, each question as if it stood alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkout import ROOT
from steered import HOOK, tiny_sae
from tiny_models import CHAT_TEMPLATE, tiny_language_model
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saeflow.analyses.labels.asking import ALIKE, LocalAsker, Question, next_logits
from saeflow.analyses.labels.firing import peaks
from saeflow.analyses.labels.prompts import read_prompts
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel
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


ANSWERS = ("Yes", "No", *map(str, range(10)))


def spelling_language_model(context: int = 512, template: str | None = None) -> LanguageModel:
    """A model whose tokenizer parts a space from the digit behind it, as those of Llama 3, Qwen and
    SmolLM2 do."""
    lm = tiny_language_model("llama", max_position_embeddings=context)
    names = ("<bos>", "<eos>", "<unk>", "▁", "\t", "?", "\n", *ANSWERS, "cat", "dog", "the", ".")
    tokenizer = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    pieces = Regex(r"▁|\t|\n|\?|\d|\w+|[^\w\s]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **special)
    return LanguageModel(lm.model, fast, lm.family)


def logits_behind(lm: LanguageModel, tokens: list[int]) -> torch.Tensor:
    return lm.model(torch.tensor([tokens]), use_cache=False).logits[0, -1]


@torch.no_grad()
def test_an_intruder_is_named_by_its_digit_and_not_by_the_space_before_all_of_them() -> None:
    lm = spelling_language_model()
    asker = LocalAsker(lm, PROMPTS, 0)
    assert len({lm.tokenize(f" {number}", bos=False)[0] for number in range(1, 6)}) == 1
    named = set()
    for number in range(8):
        passages = tuple(f"cat {'dog ' * (number + place)}the" for place in range(5))
        listed = "\n\n".join(f"{place}. {text}" for place, text in enumerate(passages, 1))
        question = lm.tokenize(PROMPTS.intruder.asked("", "", listed))
        space = lm.tokenize(" ", bos=False)
        digits = [lm.tokenize(str(digit), bos=False)[0] for digit in range(1, 6)]
        expected = 1 + int(logits_behind(lm, question + space)[torch.tensor(digits)].argmax())
        reply = asker.tell([Question("intruder", "", passages)])[0]
        assert reply.values == (expected,)
        named.add(expected)
    assert named != {1}


@torch.no_grad()
def test_a_simulation_is_the_number_that_the_model_expects_behind_every_token() -> None:
    lm = spelling_language_model()
    passage = ("the", " cat", "\n", " dog")
    reply = LocalAsker(lm, PROMPTS, 0).tell([Question("simulation", "cat", passage)])[0]
    assert reply.values is not None
    assert len(reply.values) == len(passage)
    digits = torch.tensor([lm.tokenize(str(digit), bos=False)[0] for digit in range(10)])
    text = PROMPTS.simulation.asked("cat", "") + "\n"
    for token, value in zip(("the", "cat", "⏎", "dog"), reply.values, strict=True):
        shares = logits_behind(lm, lm.tokenize(f"{text}{token}\t"))[digits].double().softmax(0)
        assert value == pytest.approx(float(shares @ torch.arange(10.0).double()), abs=1e-4)
        text += f"{token}\t?\n"
    other = LocalAsker(lm, PROMPTS, 0).tell([Question("simulation", "dog", passage)])[0]
    assert other.values != reply.values


@pytest.mark.parametrize("chats", [True, False])
def test_every_kind_of_question_is_answered(chats: bool) -> None:
    lm = spelling_language_model(512, CHAT_TEMPLATE if chats else None)
    asker = LocalAsker(lm, PROMPTS, 0, new_tokens=4)
    passages = ("the cat sat", "a dog ran", "the mat", "a tree", "the dog")
    asked = [
        Question("detection", "cat", passages),
        Question("fuzzing", "cat", passages),
        Question("intruder", "", passages),
        Question("generation", "cat", ()),
        Question("generation", "cat", (), 1),
        Question("explanation", "", passages),
        Question("simulation", "cat", ("the", " cat")),
    ]
    replies = asker.tell(asked)
    for answer in replies[:2]:
        assert answer.values is not None
        assert len(answer.values) == len(passages)
    assert replies[2].values is not None
    assert replies[2].values[0] in {1.0, 2.0, 3.0, 4.0, 5.0}
    assert len(set(replies[0].values or ())) == len(passages)
    alone = asker.tell([Question("detection", "cat", (passages[1],))])[0]
    assert alone.values is not None
    assert replies[0].values is not None
    assert alone.values[0] == pytest.approx(replies[0].values[1], abs=1e-4)
    assert [answer.text for answer in asker.tell(asked)] == [answer.text for answer in replies]
    assert all(answer.text or answer.reason for answer in replies[3:6])


def test_a_model_that_has_no_words_for_the_answers_gives_none() -> None:
    lm = tiny_language_model("llama", max_position_embeddings=512)
    passages = ("the cat sat", "a dog ran")
    asked = [Question(kind, "cat", passages) for kind in ("detection", "intruder", "simulation")]
    assert LocalAsker(lm, PROMPTS, 0).tell(asked) == [(None, None, ALIKE)] * 3


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
    lm = spelling_language_model(64)
    asker = LocalAsker(lm, PROMPTS, 0, new_tokens=4)
    assert asker.tell([Question("explanation", "", ("the cat sat on the mat",) * 40)])[0]
    long = " ".join(["cat"] * 80)
    for kind, passages in (
        ("detection", (long,)),
        ("explanation", (long,)),
        ("simulation", ("cat",) * 80),
    ):
        with pytest.raises(SaeflowError, match=r"labels.asked: .* 64; lower labels.passages"):
            asker.tell([Question(kind, "cat", passages)])
