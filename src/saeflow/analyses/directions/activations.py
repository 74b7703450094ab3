"""What a model holds of prompts at some positions after every layer, in one pass, and how it would
begin its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import final_states, logits_after, padded

if TYPE_CHECKING:
    from saeflow.analyses.directions.settings import Behaviour

TOKENS_AT_ONCE = 1024


class Read(NamedTuple):
    """What a model holds of prompts.

    Attributes:
        activations: of the residual stream after layers, float32.
        log_odds: of an answer that begins as the behaviour does.
    """

    activations: Float[Tensor, "prompts positions layers d_model"]
    log_odds: Float64[np.ndarray, " prompts"]


def behaviour_tokens(lm: LanguageModel, behaviour: Behaviour) -> list[int]:
    """The first tokens of answers that show the behaviour.

    Raises:
        SaeflowError: a token that is named is none, or several.
    """
    tokens = []
    for text in behaviour.tokens or behaviour.phrases:
        pieces = lm.tokenize(text, bos=False)
        unknown = lm.tokenizer.unk_token_id
        if behaviour.tokens and (len(pieces) != 1 or pieces[0] == unknown):
            read = ", ".join(map(repr, map(lm.tokenizer.decode, pieces))) or "nothing"
            raise SaeflowError(
                f"directions.behaviour.tokens: {text!r} is no single token of the model but "
                f"{'a word that it does not know' if pieces == [unknown] else read}; name one "
                "that answers begin with"
            )
        tokens += pieces[:1]
    return sorted(set(tokens))


def batches(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of rows that go through the model together: of about equal length."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    chunk: list[int] = []
    for number in order:
        if chunk and len(rows[number]) * (len(chunk) + 1) > TOKENS_AT_ONCE:
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk


@torch.no_grad()
def read_activations(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    places: Int64[np.ndarray, "prompts positions"],
    layers: Sequence[int],
    tokens: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> Read:
    """Read all layers and the first token's distribution in one pass over the prompts.

    Args:
        lm: the model.
        rows: tokens of the prompts.
        places: which tokens are read.
        layers: after which the stream is read.
        tokens: with which the behaviour begins.
        progress: called with (prompts read, prompts).
    """
    shape = (len(rows), places.shape[1], len(layers), lm.d_model)
    activations = torch.empty(shape, dtype=torch.float32)
    log_odds, done = np.empty(len(rows)), 0
    for chunk in batches(rows):
        own = torch.from_numpy(places[chunk]).to(lm.device)
        seen: dict[int, Tensor] = {}

        def keep(layer: int, resid: Tensor, own: Tensor, seen: dict[int, Tensor]) -> None:
            index = own[:, :, None].expand(-1, -1, resid.shape[-1])
            seen[layer] = resid.gather(1, index).float().cpu()

        functions = [
            (f"blocks.{layer}.hook_resid_post", partial(keep, layer, own=own, seen=seen))
            for layer in layers
        ]
        with attach(lm, functions):
            begun = first_logits(lm, [rows[number] for number in chunk])
        activations[chunk] = torch.stack([seen[layer] for layer in layers], dim=2)
        log_odds[chunk] = odds(begun, tokens)
        done += len(chunk)
        if progress:
            progress(done, len(rows))
    if not torch.isfinite(activations).all():
        raise SaeflowError("directions: an activation is no number; check model.dtype")
    return Read(activations, log_odds)


@torch.no_grad()
def first_logits(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    edit: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Float[Tensor, "prompts d_vocab"]:
    """The logits of the first token of the answer to each prompt; float32, on the CPU."""
    logits = torch.empty(len(rows), lm.d_vocab)
    with edit():
        for chunk in batches(rows):
            own = [rows[number] for number in chunk]
            states = final_states(lm, padded(lm, own))
            logits[chunk] = logits_after(lm, states, list(map(len, own))).cpu()
    return logits


def odds(
    logits: Float[Tensor, "prompts d_vocab"], tokens: Sequence[int]
) -> Float64[np.ndarray, " prompts"]:
    """Log-odds that the next token is one of some, against that it is any other.

    Raises:
        SaeflowError: they are not finite: none of the tokens, or no other, can be drawn.
    """
    chosen = torch.zeros(logits.shape[-1], dtype=torch.bool)
    chosen[list(tokens)] = True
    exact = logits.double()
    log_odds = exact[:, chosen].logsumexp(-1) - exact[:, ~chosen].logsumexp(-1)
    if not torch.isfinite(log_odds).all():
        raise SaeflowError(
            "directions: log-odds are not finite: the model gives the tokens of the behaviour, or "
            "all others, a probability of zero; name other tokens in directions.behaviour.tokens"
        )
    return log_odds.numpy()


def divergence(
    usual: Float[Tensor, "rows d_vocab"], moved: Float[Tensor, "rows d_vocab"]
) -> Float64[np.ndarray, " rows"]:
    """KL(usual ‖ moved) of next-token distributions, in nats; tokens that are never drawn count
    nothing.

    Raises:
        SaeflowError: it is not finite: the edit made a token impossible.
    """
    p, q = (logits.double().log_softmax(-1) for logits in (usual, moved))
    terms = torch.where(p.isneginf(), 0.0, p.exp() * (p - q))
    kl = terms.sum(-1).clamp_min(0).numpy()
    if not all(map(math.isfinite, kl)):
        raise SaeflowError(
            "directions: a KL divergence is not finite: an edit gives a token that the model may "
            "draw a probability of zero; lower the scales"
        )
    return kl
