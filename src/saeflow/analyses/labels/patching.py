"""Vectors in place of a word of a prompt, many at once: what the model then says next.

A prompt has a placeholder, a word whose residual stream at the input of an early layer is replaced
by a vector, or has the vector added to it (SelfIE, arXiv 2403.10949; Patchscopes, arXiv
2401.06102). What stands before the first placeholder is the same for all vectors, and is run once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache

from saeflow.errors import SaeflowError
from saeflow.models.chat import prompt_text
from saeflow.models.hooks import HookFunction, attach
from saeflow.models.running import capture, check_length

if TYPE_CHECKING:
    from saeflow.config.sections import Message
    from saeflow.models.language_model import LanguageModel

MARK = "{latent}"
"""Stands for the placeholder in a template."""
WORD = "X"
"""The word that takes its place in the text."""
EditKind = Literal["replace", "add"]


class Placed(NamedTuple):
    """A prompt as tokens, BOS first, and where its placeholders are."""

    tokens: list[int]
    positions: list[int]

    @property
    def start(self) -> int:
        """The first placeholder: what lies before it is shared."""
        return self.positions[0]


def place(lm: LanguageModel, template: str | Sequence[Message], key: str = "templates") -> Placed:
    """Tokenise a template and find its placeholders, which may be written with what stands around
    them in one token or several.

    Args:
        lm: the model.
        template: text or messages that hold `MARK` at least once.
        key: of the config, for errors.

    Raises:
        SaeflowError: there is no placeholder, or the tokenizer cannot tell where it is.
    """
    written = prompt_text(template, lm.tokenizer)
    parts = written.split(MARK)
    if len(parts) < 2:
        raise SaeflowError(f"{key}: {written[:60]!r} has no {MARK}; write it where the vector goes")
    ends, text = [], parts[0]
    for part in parts[1:]:
        ends.append((len(text), len(text) + len(WORD)))
        text += WORD + part
    said = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens, offsets = list(said["input_ids"]), list(said["offset_mapping"])
    while tokens and tokens[0] == lm.bos_id:
        tokens, offsets = tokens[1:], offsets[1:]
    positions = [
        number + 1  # behind BOS
        for number, (start, end) in enumerate(offsets)
        if any(start < last and end > first for first, last in ends)
    ]
    if len(positions) < len(ends):
        raise SaeflowError(f"{key}: the tokenizer hides {WORD} in {text[:60]!r}; word it otherwise")
    return Placed([lm.bos_id, *tokens], positions)


def typical_norm(lm: LanguageModel, tokens: Int[Tensor, "blocks pos"], layer: int) -> float:
    """The median norm of the residual stream at the input of a layer, over all tokens but those
    that open blocks: the unit of scales."""
    hook = resid_pre(layer)
    states = capture(lm, tokens, [hook])[hook][:, 1:]
    return float(states.float().norm(dim=-1).median())


def resid_pre(layer: int) -> str:
    """The hook at the input of a layer."""
    return f"blocks.{layer}.hook_resid_pre"


class Injection:
    """Puts a vector per row at the placeholders of a prompt.

    Args:
        vectors: one per row, in units of the stream for `replace`; for `add` in units of the norm
            of what is there.
        positions: of the placeholders in what is run.
        kind: ``replace``, or ``add``, which is norm-matched: a vector of length 1 has the norm of
            what it is added to.
    """

    def __init__(
        self, vectors: Float[Tensor, "rows d_model"], positions: Sequence[int], kind: EditKind
    ) -> None:
        self.vectors, self.positions, self.kind = vectors, positions, kind
        self.done = False

    def __call__(self, resid: Float[Tensor, "rows pos d_model"]) -> Tensor | None:
        """The stream with the vectors in it; only the first pass of a prompt is edited, not what is
        generated."""
        if self.done:
            return None
        self.done = True
        at = torch.tensor(self.positions, device=resid.device)
        there = resid[:, at]
        own = self.vectors[:, None].to(resid.device, torch.float32)
        if self.kind == "add":
            own = there.float() + own * there.float().norm(dim=-1, keepdim=True)
        return resid.index_copy(1, at, own.to(resid.dtype).expand_as(there).contiguous())


class Prefix:
    """What stands before the first placeholder of a prompt, run once."""

    def __init__(self, lm: LanguageModel, placed: Placed) -> None:
        if lm.keeps_states:
            raise SaeflowError(
                f"labels: {lm.model.config.model_type} models keep states in place of keys and "
                "values, and cannot explain themselves here; name a model of attention alone"
            )
        check_length(lm, len(placed.tokens))
        self._lm, self.placed = lm, placed
        self._cache = DynamicCache()
        before = torch.tensor([placed.tokens[: placed.start]], device=lm.device)
        with torch.no_grad():
            lm.decoder(before, past_key_values=self._cache, use_cache=True)

    def states(
        self,
        vectors: Float[Tensor, "rows d_model"],
        layer: int,
        kind: EditKind,
        read: Sequence[str] = (),
        behind: Int[Tensor, "rows extra"] | None = None,
    ) -> tuple[Float[Tensor, "rows pos d_model"], dict[str, Tensor]]:
        """Final states from the first placeholder on, with a vector per row at all placeholders.

        Args:
            vectors: in the units of `Injection`; gradients pass through them.
            layer: at whose input they are put in.
            kind: of the edit.
            read: hooks whose tensors are given, too.
            behind: tokens of every row behind the prompt.
        """
        placed, rows = self.placed, len(vectors)
        suffix = torch.tensor([placed.tokens[placed.start :]], device=self._lm.device)
        suffix = suffix.expand(rows, -1)
        if behind is not None:
            suffix = torch.cat([suffix, behind], dim=1)
        check_length(self._lm, placed.start + suffix.shape[1])
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        at = [position - placed.start for position in placed.positions]
        seen: dict[str, Tensor] = {}
        with attach(
            self._lm,
            [
                (resid_pre(layer), Injection(vectors, at, kind)),
                *((name, _keeper(seen, name)) for name in read),
            ],
        ):
            states = self._lm.decoder(suffix, past_key_values=cache, use_cache=True)
        return states.last_hidden_state, seen


def _keeper(seen: dict[str, Tensor], name: str) -> HookFunction:
    def keep(tensor: Tensor) -> None:
        seen[name] = tensor

    return keep


@contextmanager
def patched(
    lm: LanguageModel,
    placed: Placed,
    vectors: Float[Tensor, "rows d_model"],
    layer: int,
    kind: EditKind,
) -> Iterator[None]:
    """Within the block, the next prompts that are run, one row per vector, have the vectors at
    their placeholders; what is generated after them is left alone."""
    with attach(lm, [(resid_pre(layer), Injection(vectors, placed.positions, kind))]):
        yield
