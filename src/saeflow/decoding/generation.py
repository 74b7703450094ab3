"""Batched decoding of steered text, with the residual stream read on the way.

An edit at a layer changes nothing at or below that layer. So the residual stream that a forward
pass of the steered model shows at the hook, before the edit, is what the unsteered model would show
on the same text, and no second pass is needed to read it. Only the last token drawn has to be run
once more, up to the hook.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from saeflow.decoding.edits import Edit, apply, check_vectors
from saeflow.decoding.ending import Ending
from saeflow.decoding.recording import Recording
from saeflow.decoding.sampling import sample
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach, check_hook
from saeflow.seeds import uniforms

if TYPE_CHECKING:
    from saeflow.config.sections import Sampling
    from saeflow.models.language_model import LanguageModel

Reader = Callable[[Float[Tensor, "rows pos d_model"], int], None]
"""Gets the residual stream before the edit, and the position of its first token."""


@torch.no_grad()
def generate(
    lm: LanguageModel,
    prompts: Int[Tensor, "prompts prompt_length"],
    edit: Edit | None,
    hook: str,
    sampling: Sampling,
    keys: NDArray[np.uint64],
    new_tokens: int,
    read: Reader | None = None,
    memory: Memory | None = None,
) -> Int[Tensor, "rows new_tokens"]:
    """Continue every prompt ``rows / prompts`` times, each until a token that ends a text or a
    turn.

    Rows of one prompt stand together. Its forward pass is run once for all of them. What a row
    holds behind its end is its last token over and over; `saeflow.decoding.ending.lengths` says how
    much of a row counts. Whether other rows have ended changes nothing in a row.

    Args:
        lm: the model.
        prompts: of equal length, BOS included.
        edit: one row per prompt; None leaves the model unsteered.
        hook: where the edit is made and the stream is read.
        sampling: how tokens are drawn.
        keys: one per row, from `saeflow.seeds.row_keys`; equal keys draw equal noise.
        new_tokens: per row.
        read: called with the stream of every position of every row, in order, before the edit; not
            with positions that lie behind the end of all rows.
        memory: of an earlier call, to be used again. An edit that begins between generated tokens
            goes step by step, recorded or not.

    Returns:
        The tokens drawn.

    Raises:
        SaeflowError: the hook does not exist, the text is longer than the model's context, a vector
            is wrong, or the logits are not numbers.
    """
    prompt_length = prompts.shape[1]
    _check(lm, hook, edit, prompt_length + new_tokens)
    repeats = len(keys) // len(prompts)
    noise = torch.from_numpy(uniforms(keys, new_tokens).T.copy()).to(lm.device)
    drawn = torch.empty((new_tokens, len(keys)), dtype=torch.long, device=lm.device)
    memory = memory or Memory()
    cache, recording = memory.cache, memory.recording
    cache.reset()
    stream = _Stream(edit, read, prompt_length, repeats)
    if edit and not isinstance(edit.positions, str) and edit.positions > prompt_length:
        recording = None
    with attach(lm, [(hook, stream)]):
        logits = prefill(lm, prompts, cache).repeat_interleave(repeats, 0)
    room = prompt_length + (0 if recording else new_tokens)
    cache.repeat(repeats, room, widen=not lm.family.adapted)
    stream.repeat()
    if recording:
        step = recording.begin(lm, hook, stream.edit, cache, prompt_length + new_tokens, stream)
    else:
        step = partial(decode_one_token, lm, cache=cache)
    with nullcontext() if recording else attach(lm, [(hook, stream)]):
        ending = Ending(lm, len(keys))
        for number in range(new_tokens):
            ending.see(logits)
            tokens = drawn[number] = ending.of(sample(logits, sampling, noise[number]))
            if ending.everywhere(number):
                drawn[number:] = tokens
                break
            if number + 1 < new_tokens:
                logits = step(tokens)
        if read is not None and new_tokens:
            stream.stop_after_reading()
            with suppress(_Stop):
                step(tokens)
    ending.check(None if stream.edit is None else stream.edit.scales)
    return drawn.T.contiguous()


def prefill(
    lm: LanguageModel, prompts: Int[Tensor, "prompts prompt_length"], cache: Cache
) -> Float[Tensor, "prompts d_vocab"]:
    """Run the prompts into the cache; the logits of what comes next."""
    return lm.model(prompts, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]


def decode_one_token(
    lm: LanguageModel, tokens: Int[Tensor, " rows"], cache: Cache
) -> Float[Tensor, "rows d_vocab"]:
    """Run one token per row into the cache; the logits of what comes next."""
    return lm.model(
        tokens[:, None], past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]


def _check(lm: LanguageModel, hook: str, edit: Edit | None, length: int) -> None:
    check_hook(lm, hook)
    if lm.keeps_states:
        raise SaeflowError(
            f"steering: {lm.model.config.model_type} models keep states in place of keys and "
            "values, and no text can be drawn from them here; name a model of attention alone"
        )
    if edit is not None:
        check_vectors(edit.vectors, lm.d_model, "steering")
    if length > lm.context:
        raise SaeflowError(
            f"steering: prompt and new tokens make {length} tokens and the model's context is "
            f"{lm.context}; lower new_tokens or shorten the prompts"
        )


class _Stop(Exception):  # noqa: N818 - nothing is wrong
    """The last token has been read; layers above the hook have nothing left to do."""


class _Stream:
    """The function at the hook: reads the stream, then edits it, and knows where in the text it
    is."""

    def __init__(
        self, edit: Edit | None, read: Reader | None, prompt_length: int, repeats: int
    ) -> None:
        self.edit = edit
        self.read = read
        self.prompt_length = prompt_length
        self.repeats = repeats
        self.offset = 0
        self.last = False

    def __call__(
        self, resid: Float[Tensor, "rows pos d_model"]
    ) -> Float[Tensor, "rows pos d_model"] | None:
        if self.read is not None:
            self.read(
                resid.repeat_interleave(self.repeats, 0) if self.offset == 0 else resid, self.offset
            )
        if self.last:
            raise _Stop
        edited = (
            None if self.edit is None else apply(self.edit, resid, self.offset, self.prompt_length)
        )
        self.offset += resid.shape[1]
        return edited

    def repeat(self) -> None:
        """From now on the rows are those after the prompt."""
        self.edit = None if self.edit is None else self.edit.repeat(self.repeats)

    def stop_after_reading(self) -> None:
        self.last = True


class BufferLayer(DynamicLayer):
    """Keys and values of one layer in buffers of the final length: a token is written without
    copying those before it.

    Positions come first in memory, so that what attention reads lies in one piece, and a token is
    written in one piece. Layers with a sliding window keep all positions too; the model's own mask
    hides those outside of it. Keys may be wider than values (DeepSeek).
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[str, Tensor] = {}
        self.filled = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values ``[batch, heads, pos, width]``; all of them so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        self._write(key_states, value_states)
        return self.keys, self.values

    def repeat(self, repeats: int, length: int, widen: bool) -> None:
        """Open the buffers for texts of a length, every row of the prompt ``repeats`` times in
        them.

        Args:
            widen: keep float32 on a CPU, where the attention of `saeflow.models.fast_layers` is
                faster with it than with narrower types.
        """
        keys, values = (states.repeat_interleave(repeats, 0) for states in (self.keys, self.values))
        self.key_buffer = self._buffer("keys", keys, length, widen)
        self.value_buffer = self._buffer("values", values, length, widen)
        self._write(keys, values)

    def reset(self) -> None:
        """Forget all keys and values; the memory stays for the next batch."""
        self.is_initialized = False
        self.filled = 0

    def _buffer(
        self, name: str, states: Float[Tensor, "rows heads pos width"], length: int, widen: bool
    ) -> Float[Tensor, "rows heads length width"]:
        rows, heads, _, width = states.shape
        shape = (length, rows, heads, width)
        dtype = torch.float32 if widen and states.device.type == "cpu" else states.dtype
        memory = self.memory.get(name)
        if memory is None or memory.numel() < math.prod(shape) or memory.dtype != dtype:
            memory = self.memory[name] = states.new_empty(math.prod(shape), dtype=dtype)
        return memory[: math.prod(shape)].view(shape).permute(1, 2, 0, 3)

    def _write(self, key_states: Tensor, value_states: Tensor) -> None:
        before, self.filled = self.filled, self.filled + key_states.shape[2]
        self.key_buffer[:, :, before : self.filled] = key_states
        self.value_buffer[:, :, before : self.filled] = value_states
        self.keys = self.key_buffer[:, :, : self.filled]
        self.values = self.value_buffer[:, :, : self.filled]


class BufferCache(Cache):
    """A key-value cache of `BufferLayer`.

    Fresh memory is slow to touch for the first time, so one cache serves batch after batch.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=BufferLayer)

    def repeat(self, repeats: int, length: int, widen: bool = True) -> None:
        """After the prompt, before the first token: every row ``repeats`` times, room for
        ``length`` positions."""
        for layer in self.layers:
            layer.repeat(repeats, length, widen)


@dataclass(frozen=True)
class Memory:
    """What one call of `generate` leaves for the next: the same memory serves batch after batch."""

    cache: BufferCache = field(default_factory=BufferCache)
    recording: Recording | None = None
    """One decode step, recorded and replayed for every token; None runs every step."""
