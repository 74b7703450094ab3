"""Steered completions of one vector over a grid of scales."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
from saeflow.decoding.edits import check_vectors
from saeflow.decoding.generation import Memory
from saeflow.decoding.recording import Recording
from saeflow.decoding.rollouts import (
    BATCH_ROWS,
    Plan,
    PromptGroup,
    Rollouts,
    Steered,
    prompt_groups,
    roll_out,
)
from saeflow.errors import SaeflowError
from saeflow.models.chat import continuation_text, prompt_text

if TYPE_CHECKING:
    from saeflow.analyses.steering.settings import Completions
    from saeflow.models.language_model import LanguageModel

PURPOSE = "completions"


def absolute_scales(settings: Completions, mean_norm: float, norm: float = 1.0) -> list[float]:
    """The grid in units of the residual stream.

    Args:
        settings: the grid and its unit.
        mean_norm: of the activations at the hook.
        norm: of the vector, where it counts; see `saeflow.analyses.steering.vectors.Built`.
    """
    return [
        scale * norm * (mean_norm if settings.scale_unit == "norm" else 1.0)
        for scale in settings.scales
    ]


def complete(
    lm: LanguageModel,
    hook: str,
    vector: Float[Tensor, " d_model"],
    scales: Sequence[float],
    settings: Completions,
    seed: int,
    goal: str,
    method: str,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[int, int], None] | None = None,
    *,
    recorded: bool = False,
) -> pl.DataFrame:
    """Write ``settings.samples`` completions per scale and prompt, all scales in the same batches.

    The noise of a completion is named by prompt and sample. So at scale 0 all goals and methods
    give the same texts, and at other scales they differ by what the vector does.

    Args:
        lm: the model.
        hook: where the vector is added, at all positions.
        vector: unit norm.
        scales: absolute, from `absolute_scales`.
        settings: prompts, samples, new tokens, sampling.
        seed: of the study.
        goal: the vector is for.
        method: the vector is by.
        batch_rows: most rows of a decode batch.
        progress: called with (completions done, completions).
        recorded: whether decode steps are recorded as CUDA graphs and replayed.

    Returns:
        The columns of `COMPLETIONS_SCHEMA`. ``prompt`` is as it was given, messages as the chat
        template writes them; ``continuation`` what the model wrote, without special tokens;
        ``text`` one behind the other. ``prompt_ids`` opens with BOS, ``continuation_ids`` holds
        what was drawn before the token that ended the text, and ``ended`` whether one did.

    Raises:
        SaeflowError: the vector is not finite or of the wrong width, a scale is not a number, the
            model has no chat template for messages, or its logits are not numbers.
    """
    check_vectors(vector[None], lm.d_model, f"goal {goal}, method {method}")
    if not all(map(math.isfinite, scales)):
        raise SaeflowError(
            f"goal {goal}, method {method}: scales {list(scales)} must be finite numbers"
        )
    steered = Steered(
        vector[None].expand(len(scales), -1),
        torch.tensor(scales, dtype=torch.float64),
        range(len(scales)),
    )
    rows = write(lm, hook, steered, settings, seed, batch_rows, progress, recorded=recorded)
    for row in rows:
        of_prompt = (row["prompt"], row.pop("occurrence"), row["sample"])
        scale_index = row.pop("number")
        scale = float(scales[scale_index])
        row |= {"goal": goal, "method": method, "seed": seed}
        row |= {"scale": scale, "scale_index": scale_index}
        row["completion_id"] = identity(seed, goal, method, scale, *of_prompt)
    return pl.DataFrame(rows, schema=COMPLETIONS_SCHEMA)


def identity(*name: Any) -> str:
    """The id of a completion, from what it was written with: it does not change when others are
    added to the table."""
    return hashlib.blake2b("\x1f".join(map(repr, name)).encode(), digest_size=8).hexdigest()


def write(
    lm: LanguageModel,
    hook: str,
    steered: Steered,
    settings: Completions,
    seed: int,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[int, int], None] | None = None,
    *,
    recorded: bool = False,
) -> list[dict[str, Any]]:
    """Write ``settings.samples`` completions of every prompt with each of some vectors, all in the
    same batches.

    Args:
        steered: vectors, each at its scale; those of one hook.

    Returns:
        A row per completion, those of the first vector first: its ``number`` among the vectors,
        ``occurrence`` of the prompt among its equals, and columns of `COMPLETIONS_SCHEMA`.
    """
    count = len(steered.numbers)
    plan = Plan(settings.samples, settings.new_tokens, settings.sampling, seed, PURPOSE, batch_rows)
    rows: list[dict[str, Any]] = []
    for group in prompt_groups(lm, settings.prompts):
        of_group = replace(plan, units=count * len(group.texts))
        memory = Memory(recording=Recording() if recorded else None)
        for rollouts in roll_out(lm, hook, group, steered, of_group, memory):
            rows += _rows(lm, group, rollouts)
            if progress:
                progress(len(rows), count * len(settings.prompts) * settings.samples)
    texts = [prompt_text(prompt, lm.tokenizer) for prompt in settings.prompts]
    order = {text: place for place, text in reversed(list(enumerate(texts)))}
    rows.sort(key=lambda row: (row["number"], order[row["prompt"]], row["sample"]))
    return rows


def _rows(lm: LanguageModel, group: PromptGroup, rollouts: Rollouts) -> list[dict[str, Any]]:
    rows = []
    for unit, (number, place) in enumerate(
        zip(rollouts.vectors.tolist(), rollouts.prompts, strict=True)
    ):
        prompt, prompt_ids = group.texts[place], group.tokens[place].tolist()
        drawn = zip(
            rollouts.samples,
            rollouts.tokens[unit].tolist(),
            rollouts.lengths[unit].tolist(),
            strict=True,
        )
        for sample, tokens, length in drawn:
            continuation = continuation_text(lm.tokenizer, prompt_ids, tokens[:length])
            rows.append(
                {
                    "number": number,
                    "prompt": prompt,
                    "occurrence": group.occurrences[place],
                    "sample": sample,
                    "text": prompt + continuation,
                    "continuation": continuation,
                    "prompt_ids": prompt_ids,
                    "continuation_ids": tokens[:length],
                    "ended": length < len(tokens),
                }
            )
    return rows
