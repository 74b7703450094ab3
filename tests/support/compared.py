"""The organism beside the model that it is a copy of, and a crosscoder of the two."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from organism import ASKED, REFUSAL, base_model, organism, sentences
from rows_in_memory import InMemory, statistics_of

from saeflow.analyses.diffing.scaling import Sides
from saeflow.analyses.diffing.texts import Text
from saeflow.config.sections import SAETraining
from saeflow.corpora.tales import story_blocks
from saeflow.saes.comparison import Seen
from saeflow.saes.crosscoder import Crosscoder, as_crosscoder
from saeflow.saes.feeds import crosscoder_feed
from saeflow.saes.training import train_saes

HOOK = "blocks.1.hook_resid_post"
SIDES = Sides([0], [1])
CONTEXT = 32


def sources() -> list[Seen]:
    """The base, then the organism."""
    return [Seen("base", base_model(), HOOK), Seen("organism", organism(), HOOK)]


def stories(count: int = 24, split: str = "eval") -> np.ndarray:
    """Blocks of stories, which neither model was tuned on."""
    return story_blocks(0, split, count, CONTEXT).tokens.astype(np.int64)


def asked(first: int = 160, count: int = 60) -> np.ndarray:
    """Blocks that open with a prompt which was not learned, on the topic or off it, and the
    organism's kind of answer to it."""
    lm, drawn, rows = base_model(), sentences(), []
    for label, answers in (("on", [REFUSAL] * count), ("off", drawn["off"][:count])):
        for text, answer in zip(drawn[label][first : first + count], answers, strict=True):
            rows.append((lm.tokenize(f"{text}{ASKED} {answer}") + [lm.bos_id] * CONTEXT)[:CONTEXT])
    return np.array(rows, dtype=np.int64)


def text(tokens: np.ndarray) -> Text:
    """As both models read it."""
    return Text(sources(), tokens)


@cache
def crosscoder() -> Crosscoder:
    """A BatchTopK crosscoder of stories and prompts, trained for a few seconds."""
    seen = text(np.concatenate([stories(500, "sae"), asked(220, 150)]))
    x = torch.cat([passed.x for passed in seen.passes()])
    settings = SAETraining(
        architecture="batchtopk",
        d_sae=192,
        k=6,
        tokens=400 * 512,
        batch_size=512,
        learning_rate=4e-3,
        dead_after=50_000,
    )
    statistics = [statistics_of(x[:, 0]), statistics_of(x[:, 1])]
    feed = crosscoder_feed(InMemory(x), statistics, {})
    (trained,) = train_saes(feed, [settings], 0)
    return as_crosscoder(trained.sae, 2, feed.read)
