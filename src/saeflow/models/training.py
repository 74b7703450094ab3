"""Training of a small Llama-architecture model.

Every step is named by its number alone: the data of an epoch are ordered by a named draw and
nothing else is random, so a run that is interrupted and goes on ends with the weights, to the bit,
of a run that is not.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from jaxtyping import Int, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from saeflow import seeds
from saeflow.checkpoints import load_checkpoint, save_checkpoint
from saeflow.config.sections import ModelTraining
from saeflow.corpora.tokens import TokenBlocks
from saeflow.models.language_model import bos_id

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

CHECKPOINT_SECONDS = 30.0
CURVE_POINTS = 250
GRADIENT_NORM = 1.0
CURVE_SCHEMA = {
    "step": pl.Int64,
    "tokens": pl.Int64,
    "loss": pl.Float64,
    "learning_rate": pl.Float64,
}


class Schedule(Protocol):
    """What the settings of any training here say of AdamW and its learning rate."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def weight_decay(self) -> float: ...


class TrainedModel(NamedTuple):
    """A trained model and how it came about.

    Attributes:
        model: in evaluation mode, without gradients.
        tokenizer: whose vocabulary it has.
        curve: one row per stretch of steps: ``step`` and ``tokens`` at its end, mean ``loss`` in
            nats per token, ``learning_rate`` at its end.
    """

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    curve: pl.DataFrame


def train_model(
    settings: ModelTraining,
    blocks: TokenBlocks,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    device: str = "cpu",
) -> TrainedModel:
    """Train a Llama-architecture model with tied embeddings to predict the next token.

    AdamW, linear warm-up, cosine decay to zero, float32.

    Args:
        settings: shape of the model and of the training.
        blocks: tokens ``[blocks, pos]``; ``pos`` becomes the model's context.
        tokenizer: its vocabulary becomes the model's.
        seed: the study's.
        checkpoint: file that keeps the state of an unfinished training; it is written about every
            30 s, taken up if it belongs to this very training, and left for the caller to delete
            once the model is saved.
        progress: called with (steps done, steps in all).
        device: where it is trained; the trained model is on the CPU.
    """
    tokens = torch.from_numpy(blocks.tokens.astype(np.int64))
    model = _new_model(settings, tokenizer, context=tokens.shape[1], seed=seed).to(device)
    optimizer = adamw(model, settings)
    per_epoch = math.ceil(len(tokens) / settings.batch_size)
    steps = per_epoch * settings.epochs
    identity = _identity(settings, blocks, seed)
    losses = resume_state(checkpoint, identity, model, optimizer)
    saved = time.monotonic()

    for step in range(len(losses), steps):
        epoch, batch = divmod(step, per_epoch)
        chosen = _order(seed, epoch, len(tokens))[batch * settings.batch_size :][
            : settings.batch_size
        ]
        here, rate = tokens[chosen].to(device), learning_rate(step, steps, settings)
        losses.append(_step(model, optimizer, here, rate))
        if checkpoint and time.monotonic() - saved > CHECKPOINT_SECONDS:
            save_state(checkpoint, identity, model, optimizer, losses)
            saved = time.monotonic()
        if progress:
            progress(step + 1, steps)

    model.cpu().eval().requires_grad_(False)
    return TrainedModel(
        model, tokenizer, _curve(losses, settings, tokens.numel() * settings.epochs)
    )


def learning_rate(step: int, steps: int, settings: Schedule) -> float:
    """The learning rate of a step: a linear warm-up to the peak, then a cosine to zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _new_model(
    settings: ModelTraining, tokenizer: PreTrainedTokenizerBase, context: int, seed: int
) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.d_model,
        intermediate_size=settings.d_mlp,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.n_heads,
        num_key_value_heads=settings.n_heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=bos_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws weights from the global generator
        torch.manual_seed(seeds.seed_for(seed, "model", "weights"))
        return LlamaForCausalLM(config).train()


def adamw(model: nn.Module, settings: Schedule) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves the gains of norms alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)


def _order(seed: int, epoch: int, blocks: int) -> Int64[Tensor, " blocks"]:
    return torch.from_numpy(seeds.numpy_generator(seed, "model", epoch).permutation(blocks))


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Int[Tensor, "batch pos"], rate: float
) -> float:
    # The last token predicts nothing within its block, so it is a target only.
    logits = model(batch[:, :-1], use_cache=False).logits
    loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _curve(losses: list[float], settings: ModelTraining, tokens: int) -> pl.DataFrame:
    steps = len(losses)
    bounds = np.unique(np.linspace(0, steps, min(CURVE_POINTS, steps) + 1).astype(int)).tolist()
    rows = [
        (
            end,
            round(tokens * end / steps),
            float(np.mean(losses[start:end])),
            learning_rate(end - 1, steps, settings),
        )
        for start, end in pairwise(bounds)
    ]
    return pl.DataFrame(rows, schema=CURVE_SCHEMA, orient="row")


def _identity(settings: ModelTraining, blocks: TokenBlocks, seed: int) -> str:
    """What makes a training this one: its settings, its tokens, its seed."""
    digest = hashlib.sha256(np.ascontiguousarray(blocks.tokens).tobytes())
    digest.update(f"{blocks.tokens.shape}{settings.model_dump_json()}{seed}".encode())
    return digest.hexdigest()


def save_state(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Sequence[Any],
) -> None:
    """Keep the state of an unfinished training.

    Args:
        path: of the checkpoint.
        identity: of the training; no other takes the state up.
        model: with its weights so far.
        optimizer: with its moments.
        losses: what is to be told of every step so far.
    """
    state = {
        "losses": list(losses),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    save_checkpoint(path, identity, state)


def resume_state(
    path: Path | None, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[Any]:
    """Put model and optimiser where a checkpoint of this training left them, and give the losses so
    far."""
    state = load_checkpoint(path, identity) if path else None
    if state is None:
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return list(state["losses"])
