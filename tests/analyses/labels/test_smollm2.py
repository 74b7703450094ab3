"""A real chat model says what kind of thing a direction is, at the right scale and at no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkout import ROOT
from smollm2 import cached_files
from torch.nn.functional import normalize

from saeflow.analyses.labels.asking import LocalAsker, Question
from saeflow.analyses.labels.patching import Prefix, place, resid_pre, typical_norm
from saeflow.analyses.labels.prompts import read_prompts
from saeflow.analyses.labels.self_explanation import random_directions
from saeflow.config.sections import Message
from saeflow.models.language_model import LanguageModel, load_model
from saeflow.models.running import capture, unembed

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

KINDS = {
    "dog": "animal",
    "rose": "flower",
    "Paris": "city",
    "hammer": "tool",
    "apple": "fruit",
    "red": "color",
    "piano": "instrument",
    "doctor": "profession",
    "car": "vehicle",
    "shirt": "clothing",
    "France": "country",
    "gold": "metal",
}
CONTEXTS = ("I saw the {}", "Tell me about {}", "She thought of the {}")
TEMPLATE = [
    Message(role="user", content='What is "{latent}"?'),
    Message(role="assistant", content='The word "{latent}" is a kind of'),
]
TEXT = (
    "The old man walked slowly to the market to buy some bread and a bottle of milk.",
    "Water boils at one hundred degrees, and freezes at zero.",
)
LAYER = 2


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model(cached_files()[1])


def read_at(lm: LanguageModel, text: str) -> torch.Tensor:
    """The stream at the last token of a text."""
    hook = resid_pre(LAYER)
    return capture(lm, torch.tensor([lm.tokenize(text)]), [hook])[hook][0, -1]


def test_the_kind_of_twelve_words_is_told_at_the_layers_norm_and_not_far_below_it(
    lm: LanguageModel,
) -> None:
    words = torch.stack(
        [sum((read_at(lm, text.format(word)) for text in CONTEXTS), torch.zeros(lm.d_model))
         for word in KINDS]
    )  # fmt: skip
    directions = normalize(words - words.mean(0), dim=1)
    every = torch.cat([directions, random_directions(len(KINDS), lm.d_model, 0)])
    norms = [typical_norm(lm, torch.tensor([lm.tokenize(text)]), LAYER) for text in TEXT]
    kinds = torch.tensor([lm.tokenize(f" {kind}", bos=False)[0] for kind in KINDS.values()])
    assert len(set(kinds.tolist())) == len(KINDS)
    placed = place(lm, TEMPLATE)
    prefix, accuracy = Prefix(lm, placed), {}
    hook = resid_pre(LAYER)
    stream = capture(lm, torch.tensor([placed.tokens]), [hook])[hook][0]
    there = stream[torch.tensor(placed.positions)].mean(0)  # an adapter begins with it
    for scale, bias in ((0.25, None), (2.0, None), (1.0, None), (1.0, there)):
        with torch.no_grad():
            vectors = every * scale * sum(norms) / len(norms)
            vectors = vectors if bias is None else vectors + bias
            states, _ = prefix.states(vectors, LAYER, "replace")
        logs = unembed(lm, states[:, -1]).float().log_softmax(-1)[:, kinds]
        for name, part in (("words", logs[: len(KINDS)]), ("random", logs[len(KINDS) :])):
            # a kind that is named of all counts for none
            kinds_named = (part - part.mean(0)).argmax(1)
            right = kinds_named == torch.arange(len(KINDS))
            key = (name, scale) if bias is None else (name, scale, "bias")
            accuracy[key] = float(right.float().mean())
    assert accuracy["words", 2.0] >= 0.9
    assert accuracy["words", 0.25] <= 0.5
    assert accuracy["words", 1.0, "bias"] >= 0.9 > 0.7 >= accuracy["words", 1.0]
    assert accuracy["random", 1.0, "bias"] <= 0.35
    assert accuracy["random", 2.0] <= 0.35
    assert accuracy["random", 0.25] <= 0.35


MEANT = {
    "animals": "dog cow horse cat sheep",
    "names of cities": "Paris London Berlin Rome",
    "colours": "red blue green yellow",
    "numbers": "two seven ten three",
}
SENTENCES = (
    "The dog ran after the cow and the horse in the field .",
    "My cat and a sheep sat by the door all day .",
    "She took a train from Paris to London and then to Berlin .",
    "They met in Rome when the sun was low .",
    "The wall was red and the door was blue or green .",
    "He wore a yellow hat in the rain .",
    "There were two men and seven boxes on the boat .",
    "She bought ten eggs and three pears at the shop .",
)


def test_simulations_are_hardly_more_like_their_own_label_than_like_others(
    lm: LanguageModel,
) -> None:
    asker = LocalAsker(lm, read_prompts(ROOT / "workflow/labels/asking.yaml"), 0)
    passages = [tuple(f" {word}" for word in sentence.split()) for sentence in SENTENCES]
    words = np.array(" ".join(SENTENCES).split())
    correlations = np.zeros((len(MEANT), len(MEANT)))
    for row, label in enumerate(MEANT):
        replies = asker.tell([Question("simulation", label, passage) for passage in passages])
        expected = np.concatenate([reply.values or () for reply in replies])
        for column, meant in enumerate(MEANT.values()):
            truth = np.isin(words, meant.split())
            correlations[row, column] = np.corrcoef(expected, truth)[0, 1]
    own = np.diag(correlations)
    others = (correlations.sum(axis=0) - own) / (len(MEANT) - 1)
    np.testing.assert_allclose(own, [0.14, 0.32, 0.13, -0.06], atol=0.03)
    np.testing.assert_allclose(others, [0.07, 0.25, 0.05, -0.05], atol=0.03)
    assert own.mean() > others.mean() + 0.03
