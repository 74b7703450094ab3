"""The tokens that directions of the residual stream raise and lower most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from saeflow.models.language_model import LanguageModel
from saeflow.models.unembedding import unembedding
from saeflow.models.vocabulary import vocabulary


class Weighed(NamedTuple):
    """A token at one end of what a direction does to the logits."""

    direction: int
    side: str
    rank: int
    token_id: int
    token: str
    weight: float


def extreme_tokens(
    lm: LanguageModel,
    directions: Float[Tensor, "directions d_model"],
    k: int,
    sides: Sequence[str] = ("raised", "lowered"),
) -> list[Weighed]:
    """The tokens that each direction raises and lowers most, relative to the mean token; none of a
    direction that is zero.

    Args:
        lm: whose unembedding is looked through, its final norm folded in where it has one.
        directions: of the residual stream.
        k: how many tokens of either side.
        sides: which are wanted.
    """
    words = vocabulary(lm.tokenizer, lm.d_vocab)
    steps = [*(["final_norm"] if lm.family.final_norm else []), "centred"]
    rows = unembedding(lm, words.ids.tolist(), steps)
    weights = directions.to(rows) @ rows.T
    weighed = []
    for side in sides:
        ends = weights.topk(min(k, len(words.ids)), dim=1, largest=side == "raised")
        for number in directions.any(dim=1).nonzero()[:, 0].tolist():
            values, places = ends.values[number].tolist(), ends.indices[number].tolist()
            for rank, (value, place) in enumerate(zip(values, places, strict=True)):
                token = int(words.ids[place]), words.texts[place]
                weighed.append(Weighed(number, side, rank, *token, value))
    return weighed
