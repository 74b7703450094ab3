"""Text as several models see it, pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saeflow.activations.exclusion import capture_kept
from saeflow.config.sections import Activations
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel, check_same_tokens
from saeflow.saes.comparison import Seen, read_sources
from saeflow.saes.evaluation import CACHED, blocks_per_pass


class Passed(NamedTuple):
    """One pass.

    Attributes:
        tokens: on the models' device.
        kept: which positions count.
        x: what the models hold there.
        first: the number of the first block.
        group: the part of the text that all blocks belong to.
    """

    tokens: Int64[Tensor, "blocks pos"]
    kept: Bool[Tensor, "blocks pos"]
    x: Float[Tensor, "rows n_sources d_model"]
    first: int
    group: int

    def block(self) -> Int64[np.ndarray, " rows"]:
        """The number of every row's block."""
        within: Int64[np.ndarray, " rows"] = self.kept.nonzero()[:, 0].cpu().numpy()
        return within + self.first


class Text(NamedTuple):
    """Blocks of text and the models that read them.

    Attributes:
        sources: models and hooks.
        tokens: of the blocks, each of which opens with BOS.
        settings: of the study's caches: what is left out.
        cached: by model the hooks of the study's caches, whose norms count.
    """

    sources: Sequence[Seen]
    tokens: Int64[np.ndarray, "blocks pos"]
    settings: Activations = CACHED
    cached: Mapping[str, Sequence[str]] = MappingProxyType({})

    def passes(self, groups: int = 1, at_once: int | None = None) -> Iterator[Passed]:
        """The text once, in as many parts as there are groups; every pass lies in one.

        Args:
            groups: parts, of about equal size.
            at_once: blocks of a pass at most; by default as the device does well with.
        """
        lm = self.sources[0].lm
        most = min(at_once or len(self.tokens), blocks_per_pass(lm, self.tokens.shape[1]))
        for group, part in enumerate(np.array_split(np.arange(len(self.tokens)), groups)):
            for first in range(0, len(part), most):
                numbers = part[first : first + most]
                tokens = torch.from_numpy(self.tokens[numbers]).long().to(lm.device)
                x, kept = read_sources(self.sources, tokens, self.settings, self.cached)
                yield Passed(tokens, kept, x, int(numbers[0]), group)

    def kept(self, tokens: Int64[Tensor, "blocks pos"]) -> Bool[Tensor, "blocks pos"]:
        """Which positions count, by all models."""
        kept = torch.ones_like(tokens, dtype=torch.bool)
        for source in self.sources:
            own = self.cached.get(source.name, ())
            kept &= capture_kept(source.lm, tokens, [source.hook], self.settings, own)[1]
        return kept


def check_comparable(base: Seen, tuned: Seen, tokens: Int64[np.ndarray, "blocks pos"]) -> None:
    """See that two models read the same tokens, all those of a text, and have one width.

    Raises:
        SaeflowError: they do not.
    """
    names = f"'{base.name}' and '{tuned.name}'"
    check_same_tokens(tuned.lm.tokenizer, base.lm.tokenizer, names)
    if base.lm.d_model != tuned.lm.d_model:
        raise SaeflowError(
            f"diffing: {names} are {base.lm.d_model} and {tuned.lm.d_model} wide; compare models "
            "of one width, or leave one out of diffing.models"
        )
    for seen in (base, tuned):
        if (largest := int(tokens.max(initial=0))) >= seen.lm.d_vocab:
            raise SaeflowError(
                f"diffing: the text has the token {largest}, and '{seen.name}' knows "
                f"{seen.lm.d_vocab}; compare models that read the study's text, which is in the "
                "tokens of its own model"
            )


def vocabulary_size(base: LanguageModel, tuned: LanguageModel) -> int:
    """Tokens that both models may predict: one may have rows more, of tokens that the other
    lacks."""
    return min(base.d_vocab, tuned.d_vocab)
