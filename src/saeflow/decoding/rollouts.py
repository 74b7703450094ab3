"""Many rollouts of many vectors in decode batches of one fixed shape.

A *unit* is one vector at one scale on one prompt; it is rolled out ``samples`` times. A batch holds
a fixed number of units. Which of its slots a unit takes follows from the unit's number alone, and
empty slots run unsteered, so a unit sees the same kernels in the same shape and the same row
whatever else is measured: its rollouts are bit-equal for any split of the work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from saeflow.decoding.edits import Edit
from saeflow.decoding.ending import lengths
from saeflow.decoding.generation import Memory, generate
from saeflow.models.chat import prompt_text
from saeflow.seeds import row_keys

if TYPE_CHECKING:
    from saeflow.config.sections import Prompt, Sampling
    from saeflow.models.language_model import LanguageModel

BATCH_ROWS = 512


@dataclass(frozen=True)
class Plan:
    """How rollouts are drawn; the same for all of them."""

    samples: int
    """Rollouts per unit."""
    new_tokens: int
    sampling: Sampling
    seed: int
    """Of the study."""
    purpose: str
    """What the rollouts are for; part of the noise's name, which never holds the vector."""
    batch_rows: int = BATCH_ROWS
    """Most rows of a decode batch."""
    read: Literal["generated", "all"] | None = None
    """Positions whose residual stream is kept: of generated tokens, or all but BOS; None keeps
    nothing."""
    units: int | None = None
    """How many there are in all, where that follows from the settings alone: a batch has no more
    slots than these fill. None fills it up, so that the shape of batches is the same whatever else
    is measured."""

    @property
    def chunk(self) -> int:
        """Samples of a unit in one batch: all of them where they fit, else equal shares."""
        parts = -(-self.samples // self.batch_rows)
        return -(-self.samples // parts)

    @property
    def slots(self) -> int:
        """Units of one batch, a power of two so that blocks of vectors fill whole batches."""
        fitting = 1 << ((self.batch_rows // self.chunk).bit_length() - 1)
        return fitting if self.units is None else min(fitting, 1 << (self.units - 1).bit_length())


class PromptGroup(NamedTuple):
    """Prompts of equal token length."""

    texts: list[str]
    """Messages as the chat template writes them."""
    occurrences: list[int]
    """How often the same text came before; equal prompts draw different noise."""
    tokens: Int[Tensor, "prompts prompt_length"]
    """BOS first."""


class Steered(NamedTuple):
    """Vectors, each at the scale at which it is added."""

    vectors: Float[Tensor, "n d_model"]
    """Unit norm, float32."""
    scales: Float[Tensor, " n"]
    numbers: Sequence[int]
    """Which vectors these are; they decide the slots. Consecutive numbers fill batches best."""


class Rollouts(NamedTuple):
    """What one batch gave, without its padding."""

    vectors: Int[Tensor, " units"]
    """Index of every unit's vector among those given."""
    prompts: list[int]
    """Index of every unit's prompt in the group."""
    samples: range
    """Numbers of the samples."""
    tokens: Int[Tensor, "units samples new_tokens"]
    lengths: Int[Tensor, "units samples"]
    """How many of the tokens come before the one that ends the text, if there is one."""
    resid: Float[Tensor, "units samples pos d_model"] | None
    """The residual stream before the edit, at the positions asked for; zeros behind the end of the
    longest text."""


def prompt_groups(lm: LanguageModel, prompts: Sequence[Prompt]) -> list[PromptGroup]:
    """Sort prompts by token length, in the order in which the lengths first appear.

    Raises:
        SaeflowError: a prompt is given as messages and the model has no chat template, or one that
            refuses them.
    """
    by_length: dict[int, list[tuple[str, int, list[int]]]] = {}
    seen: Counter[str] = Counter()
    for prompt in prompts:
        text = prompt_text(prompt, lm.tokenizer)
        tokens = lm.tokenize(text)
        by_length.setdefault(len(tokens), []).append((text, seen[text], tokens))
        seen[text] += 1
    return [
        PromptGroup(
            [text for text, _, _ in group],
            [occurrence for _, occurrence, _ in group],
            torch.tensor([tokens for _, _, tokens in group], device=lm.device),
        )
        for group in by_length.values()
    ]


def roll_out(
    lm: LanguageModel,
    hook: str,
    group: PromptGroup,
    steered: Steered,
    plan: Plan,
    memory: Memory | None = None,
) -> Iterator[Rollouts]:
    """Generate text for every vector on every prompt of a group.

    Args:
        lm: the model.
        hook: where vectors are added, at all positions, and the residual stream is read.
        group: the prompts.
        steered: the vectors.
        plan: how rollouts are drawn, and what is read.
        memory: of an earlier call, to be used again.

    Yields:
        One item per batch, so memory does not grow with the number of vectors.
    """
    keys = _keys(group, plan)
    prompt_length = group.tokens.shape[1]
    first_read = prompt_length if plan.read == "generated" else 1
    memory = memory or Memory()
    for slots, samples in _batches(steered.numbers, len(group.texts), plan):
        vector_of = torch.tensor([vector for _, vector, _ in slots], device=lm.device)
        kept = torch.tensor([slot for slot, _, _ in slots], device=lm.device)
        prompt_of = [prompt for _, _, prompt in slots]
        edit = _edit(lm, steered, vector_of, kept, plan.slots)
        slot_prompts = np.zeros(plan.slots, dtype=np.int64)
        slot_prompts[kept.cpu().numpy()] = prompt_of
        reader = _Reader(first_read) if plan.read else None
        tokens = generate(
            lm,
            group.tokens[torch.from_numpy(slot_prompts).to(lm.device)],
            edit,
            hook,
            plan.sampling,
            keys[slot_prompts, samples.start : samples.stop].reshape(-1),
            plan.new_tokens,
            reader,
            memory,
        )
        wanted = range(samples.start, min(samples.stop, plan.samples))
        shape = (plan.slots, plan.chunk)
        tokens = _without_padding(tokens.view(*shape, -1), kept, len(wanted))
        resid = (
            reader.resid(prompt_length + plan.new_tokens).view(*shape, -1, lm.d_model)
            if reader
            else None
        )
        yield Rollouts(
            vector_of,
            prompt_of,
            wanted,
            tokens,
            lengths(tokens, lm.end_ids),
            None if resid is None else _without_padding(resid, kept, len(wanted)),
        )


def _without_padding(
    rows: Float[Tensor, "slots chunk *rest"], kept: Int[Tensor, " units"], samples: int
) -> Float[Tensor, "units samples *rest"]:
    if len(kept) < len(rows):
        rows = rows[kept]
    return rows[:, :samples]


def _keys(group: PromptGroup, plan: Plan) -> NDArray[np.uint64]:
    """Noise keys ``[prompts, samples]``, rounded up to whole chunks: named by prompt and sample, by
    nothing else."""
    samples = -(-plan.samples // plan.chunk) * plan.chunk
    items = [
        (text, occurrence, sample)
        for text, occurrence in zip(group.texts, group.occurrences, strict=True)
        for sample in range(samples)
    ]
    return row_keys(plan.seed, plan.purpose, items).reshape(len(group.texts), samples)


def _batches(
    numbers: Sequence[int], n_prompts: int, plan: Plan
) -> Iterator[tuple[list[tuple[int, int, int]], range]]:
    """The batches: triples (slot, index of the vector, index of the prompt), and the numbers of the
    samples."""
    filled: dict[int, list[tuple[int, int, int]]] = {}
    for index, number in enumerate(numbers):
        for prompt in range(n_prompts):
            batch, slot = divmod(number * n_prompts + prompt, plan.slots)
            filled.setdefault(batch, []).append((slot, index, prompt))
    for slots in filled.values():
        for start in range(0, plan.samples, plan.chunk):
            yield slots, range(start, start + plan.chunk)


def _edit(
    lm: LanguageModel,
    steered: Steered,
    vector_of: Int[Tensor, " units"],
    kept: Int[Tensor, " units"],
    slots: int,
) -> Edit:
    padded = torch.zeros((slots, lm.d_model), dtype=torch.float32, device=lm.device)
    padded[kept] = steered.vectors.to(lm.device, torch.float32)[vector_of]
    sizes = torch.zeros(slots, dtype=torch.float32, device=lm.device)
    sizes[kept] = steered.scales.to(lm.device, torch.float32)[vector_of]
    return Edit("add", padded, sizes)


class _Reader:
    """Keeps the residual stream from one position on."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.parts: list[Tensor] = []

    def __call__(self, resid: Float[Tensor, "rows pos d_model"], offset: int) -> None:
        start = max(self.first - offset, 0)
        if start < resid.shape[1]:
            self.parts.append(resid[:, start:])

    def resid(self, length: int) -> Float[Tensor, "rows pos d_model"]:
        """Up to a length of the texts, zeros where they all had ended."""
        resid = torch.cat(self.parts, dim=1)
        absent = length - self.first - resid.shape[1]
        return torch.nn.functional.pad(resid, (0, 0, 0, absent)) if absent else resid
