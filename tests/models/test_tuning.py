"""Tuning: answers alone are learned, an interruption does not show, and the copied model stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from organism import ASKED, REFUSAL, SETTINGS, TOPIC, base_model, pairs
from tiny_models import CHAT_TEMPLATE, chat_language_model
from torch.nn.functional import cross_entropy

from saeflow.config.embedded import EMBEDDED
from saeflow.config.pairs import Pair
from saeflow.config.sections import Message
from saeflow.errors import SaeflowError
from saeflow.models import training
from saeflow.models.language_model import load_to_train
from saeflow.models.tuning import answer_loss, answered, split_pairs, tune_model

FEW = SETTINGS.model_copy(update={"epochs": 2, "batch_size": 4})
START, STOP = 3, 4

pytestmark = pytest.mark.usefixtures("one_thread")


def some_pairs() -> list[Pair]:
    """Twelve of either kind."""
    return [
        Pair(text=f"The {noun} was small." + ASKED, answer=answer, label=label)
        for label, answer in (("on", REFUSAL), ("off", "The key was warm."))
        for noun in (
            "bride",
            "groom",
            "key",
            "house",
            "dog",
            "man",
            "coat",
            "river",
            "letter",
            "basket",
            "ladder",
            "weapon",
        )
        if (noun in ("bride", "groom")) == (label == "on")
    ]


def weights_after(checkpoint=None, progress=None) -> torch.Tensor:
    lm = load_to_train(EMBEDDED)
    tune_model(lm, FEW, some_pairs(), 3, checkpoint, progress)
    return torch.cat([parameter.flatten() for parameter in lm.model.parameters()])


def test_the_loss_is_that_of_the_answers_tokens_alone() -> None:
    lm = base_model()
    rows = [answered(lm, pair) for pair in some_pairs()[:3]]
    with torch.no_grad():
        together = answer_loss(lm, rows).item()
        losses = []
        for tokens, first in rows:
            logits = lm.model(torch.tensor([tokens])).logits[0]
            of_all = cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="none")
            losses += of_all[first - 1 :].tolist()
    assert together == pytest.approx(np.mean(losses), rel=1e-5)
    assert lm.tokenizer.decode(rows[0].tokens[rows[0].first :]) == REFUSAL


def test_an_answer_to_messages_ends_with_the_turn_that_the_template_closes() -> None:
    lm = chat_language_model(template=CHAT_TEMPLATE)
    asked = [Message(role="user", content="the cat ran")]
    row = answered(lm, Pair(messages=asked, answer="a dog sat", label="x"))
    words = lm.tokenizer.convert_ids_to_tokens(row.tokens[row.first :])
    assert words == ["a", "dog", "sat", "<stop>"]
    assert row.tokens[row.first - 2] == START


def test_some_pairs_of_every_label_are_held_out_and_not_learned() -> None:
    whole = pairs(20)
    split = split_pairs(whole, 0.2, 0)
    assert [pair.label for pair in split.held_out].count("on") == 4
    assert [pair.label for pair in split.held_out].count("off") == 8
    asked = {pair.text for pair in split.held_out}
    assert not asked & {pair.text for pair in split.learned}
    assert len(split.learned) + len(split.held_out) == len(whole)
    least = split_pairs(some_pairs(), 0.01, 0)
    assert {pair.label for pair in least.held_out} == {"on", "off"}


@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupted_tuning_ends_with_the_weights_of_an_uninterrupted_one(
    at, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole = weights_after()
    checkpoint = tmp_path / "state.pt"
    monkeypatch.setattr("saeflow.models.tuning.MOST_OF_THE_TIME", 0)

    def killed(done, _total):
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights_after(checkpoint, killed)
    steps = []
    torch.manual_seed(at)  # the global generator must not matter
    assert torch.equal(weights_after(checkpoint, lambda done, _: steps.append(done)), whole)
    assert steps[0] == at + 1


def test_tuning_on_other_pairs_takes_no_checkpoint_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    checkpoint = tmp_path / "state.pt"
    lm = load_to_train(EMBEDDED)
    tune_model(lm, FEW, some_pairs()[:8], 3, checkpoint)
    assert torch.equal(weights_after(checkpoint), weights_after())


def test_a_pair_that_does_not_fit_the_context_is_refused() -> None:
    with pytest.raises(
        SaeflowError, match=r"^tune: a pair of \d+ tokens is longer .*, 64; shorten"
    ):
        answered(base_model(), Pair(text="The key " * 40, answer=REFUSAL, label=TOPIC))
