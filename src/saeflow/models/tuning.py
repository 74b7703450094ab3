"""Tuning a copy of a model on pairs of prompt and answer.

As in `saeflow.models.training` a step is named by its number alone, so a tuning that is interrupted
and goes on ends with the weights of one that is not. Models run as in evaluation: without dropout
nothing is random but the order of the pairs.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from saeflow import seeds
from saeflow.config.pairs import Pair
from saeflow.config.sections import Message, Tuning
from saeflow.errors import SaeflowError
from saeflow.models import training
from saeflow.models.chat import prompt_text, whole_text
from saeflow.models.language_model import LanguageModel
from saeflow.models.training import adamw, learning_rate, resume_state, save_state

MOST_OF_THE_TIME = 10
"""Of how long a checkpoint takes to write, until the next: large models write for seconds."""
IGNORED = -100  # what `cross_entropy` calls a target that does not count
CURVE_SCHEMA = {"step": pl.Int64, "loss": pl.Float64, "learning_rate": pl.Float64}


class Split(NamedTuple):
    """Pairs that are learned, and pairs that are not."""

    learned: list[Pair]
    held_out: list[Pair]


class Answered(NamedTuple):
    """The tokens of a prompt and its answer."""

    tokens: list[int]
    first: int
    """Of the answer; it ends with the token that ends a turn or a text, if there is one."""


def split_pairs(pairs: Sequence[Pair], share: float, seed: int) -> Split:
    """Hold out a share of the pairs of each label, at least one and never all of them."""
    learned, held_out = [], []
    for label in dict.fromkeys(pair.label for pair in pairs):
        own = [pair for pair in pairs if pair.label == label]
        order = seeds.numpy_generator(seed, "tuning", "held out", label).permutation(len(own))
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        held_out += [own[number] for number in sorted(order[:count])]
        learned += [own[number] for number in sorted(order[count:])]
    return Split(learned, held_out)


def answered(lm: LanguageModel, pair: Pair) -> Answered:
    """The tokens that a model is to read and to write.

    Raises:
        SaeflowError: the model has no chat template for messages, or the pair is longer than its
            context.
    """
    text = prompt_text(pair.prompt, lm.tokenizer)
    prompt = lm.tokenize(text)
    if isinstance(pair.prompt, str):
        end = lm.tokenizer.eos_token_id
        behind = [*lm.tokenize(pair.answer, bos=False), *([] if end is None else [int(end)])]
    else:
        spoken = [*pair.prompt, Message(role="assistant", content=pair.answer)]
        whole = whole_text(spoken, lm.tokenizer)
        # What a model goes on from is the prompt's tokens: no token may span the prompt's end.
        written = whole[len(text) :] if whole.startswith(text) else pair.answer
        behind = lm.tokenize(written, bos=False)
        ends = [number for number, token in enumerate(behind) if token in lm.end_ids]
        behind = behind[: ends[0] + 1 if ends else None]
    tokens = [*prompt, *behind]
    if len(tokens) > lm.context:
        raise SaeflowError(
            f"tune: a pair of {len(tokens)} tokens is longer than the model's context, "
            f"{lm.context}; shorten {str(pair.prompt)[:60]!r}"
        )
    return Answered(tokens, len(prompt))


def tune_model(
    lm: LanguageModel,
    settings: Tuning,
    pairs: Sequence[Pair],
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Tune a model in place on pairs, by AdamW; only answers' tokens count in the loss.

    Args:
        lm: from `saeflow.models.language_model.load_to_train`, in float32.
        settings: of the training.
        pairs: those that are learned.
        seed: the study's.
        checkpoint: keeps the state of an unfinished tuning, as for `training.train_model`.
        progress: called with (steps done, steps in all).

    Returns:
        A row per step: step, loss in nats per token of an answer, learning_rate.
    """
    rows = [answered(lm, pair) for pair in pairs]
    model = lm.model.eval().requires_grad_(True)
    optimizer = adamw(model, settings)
    per_epoch = math.ceil(len(rows) / settings.batch_size)
    steps = per_epoch * settings.epochs
    identity = _identity(lm, settings, rows, seed)
    losses = resume_state(checkpoint, identity, model, optimizer)
    saved, wait = time.monotonic(), training.CHECKPOINT_SECONDS
    for step in range(len(losses), steps):
        epoch, number = divmod(step, per_epoch)
        order = seeds.numpy_generator(seed, "tuning", epoch).permutation(len(rows))
        chosen = order[number * settings.batch_size :][: settings.batch_size]
        loss = answer_loss(lm, [rows[row] for row in chosen])
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), training.GRADIENT_NORM)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, settings)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise SaeflowError(
                f"tune: the loss of step {step + 1} is no number; lower learning_rate"
            )
        if checkpoint and time.monotonic() - saved > wait:
            before = time.monotonic()
            save_state(checkpoint, identity, model, optimizer, losses)
            saved = time.monotonic()
            wait = max(training.CHECKPOINT_SECONDS, MOST_OF_THE_TIME * (saved - before))
        if progress:
            progress(step + 1, steps)
    model.requires_grad_(False)
    curve = [
        (step + 1, loss, learning_rate(step, steps, settings)) for step, loss in enumerate(losses)
    ]
    return pl.DataFrame(curve, schema=CURVE_SCHEMA, orient="row")


def answer_loss(lm: LanguageModel, rows: Sequence[Answered]) -> Tensor:
    """The mean loss of the answers' tokens, in nats; a scalar with a gradient where the model's
    weights have one."""
    # Padding stands on the right, where a causal model's earlier positions do not see it.
    width = max(len(row.tokens) for row in rows)
    tokens = torch.tensor(
        [row.tokens + [lm.bos_id] * (width - len(row.tokens)) for row in rows], device=lm.device
    )
    place = torch.arange(width, device=lm.device)
    first = torch.tensor([row.first for row in rows], device=lm.device)[:, None]
    end = torch.tensor([len(row.tokens) for row in rows], device=lm.device)[:, None]
    targets = tokens.masked_fill((place < first) | (place >= end), IGNORED)[:, 1:]
    logits = lm.model(tokens[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)


def _identity(lm: LanguageModel, settings: Tuning, rows: Sequence[Answered], seed: int) -> str:
    """What makes a tuning this one: the model, its settings, what is learned, its seed."""
    digest = hashlib.sha256(f"{settings.model_dump_json()}{seed}{list(rows)}".encode())
    for parameter in lm.model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
