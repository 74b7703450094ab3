"""How far steering moves a model: the KL divergence of its next-token distribution from the
unsteered model's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.steering.summary_io import DIVERGENCE_SCHEMA
from saeflow.judging.losses import alike, continuation_tokens, shared_prompt
from saeflow.judging.scores import completions_in
from saeflow.models.hooks import attach, parse_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import (
    final_states,
    not_finite,
    padded,
    position_chunks,
    run_prefix,
    states_after,
    suffix_states,
    unembed,
)


@torch.no_grad()
def divergences(
    lm: LanguageModel,
    hook: str,
    vector: Float[Tensor, " d_model"],
    completions: pl.DataFrame,
    batch: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """KL(steered ‖ unsteered) on each completion's own tokens, the mean over those of its
    continuation.

    Where the model ended the text itself, the place at which it did is one of them.

    Args:
        lm: the unsteered model.
        hook: where the vector is added, at all positions; a ``hook_resid_post``.
        vector: unit norm.
        completions: columns completion_id, prompt, text, scale (absolute); as a rule prompt_ids,
            continuation_ids and ended, too: a text without them is tokenised.
        batch: completions per pass.
        progress: called with (done, total) after every pass.

    Returns:
        The columns of `DIVERGENCE_SCHEMA`; ``kl`` in nats per token, null where there is no
        continuation to measure.

    Raises:
        SaeflowError: a model's logits are not numbers.
    """
    rows = [
        continuation_tokens(lm, row)
        for row in completions_in(completions.with_columns(pl.col("text").fill_null("")))
    ]
    ended = (
        completions["ended"].to_list() if "ended" in completions.columns else [False] * len(rows)
    )
    scales, kl, done = completions["scale"].to_list(), [math.nan] * len(rows), 0
    for chunk in alike(lm, rows, batch):
        prompt = shared_prompt(lm, rows[chunk[0]])
        texts = [rows[row][0] for row in chunk]
        additions = torch.tensor([scales[row] for row in chunk])[:, None] * vector.cpu().float()
        if prompt:
            states = _after(lm, hook, prompt, texts, additions)
        else:
            states = _whole(lm, hook, texts, additions)
        divergence, skipped = _divergence(lm, *states), max(len(prompt) - 1, 0)
        for place, row in enumerate(chunk):
            tokens, start = rows[row]
            # at i the token i + 1 is drawn
            steps = divergence[place, start - 1 - skipped : len(tokens) - 1 - skipped + ended[row]]
            if len(steps):
                kl[row] = float(steps.mean())
                if not math.isfinite(kl[row]):
                    raise not_finite(lm, "divergence: a next-token distribution", scales[row])
        done += len(chunk)
        if progress:
            progress(done, len(rows))
    return pl.DataFrame(
        {"completion_id": completions["completion_id"], "kl": kl}, schema=DIVERGENCE_SCHEMA
    ).fill_nan(None)


@torch.no_grad()
def divergences_in_words(
    lm: LanguageModel, completions: pl.DataFrame, prompts: pl.DataFrame, batch: int = 32
) -> pl.DataFrame:
    """The same of a method in words: KL of what the model predicts behind the words and the prompt
    from what it predicts behind the bare prompt.

    Args:
        lm: the model.
        completions: columns completion_id, prompt, scale (null behind the words), prompt_ids,
            continuation_ids, ended.
        prompts: columns prompt, given_ids.
        batch: completions per pass.

    Raises:
        SaeflowError: the model's logits are not numbers.
    """
    given = dict(prompts.select("prompt", "given_ids").iter_rows())
    rows = completions.to_dicts()
    steps = [len(row["continuation_ids"]) + row["ended"] for row in rows]
    kl = [0.0 if count else math.nan for count in steps]
    behind = [number for number, row in enumerate(rows) if row["scale"] is None and steps[number]]
    behind.sort(key=lambda number: (len(given[rows[number]["prompt"]]), steps[number]))
    for first in range(0, len(behind), batch):
        chunk = behind[first : first + batch]
        own = [rows[number] for number in chunk]
        longest = max(steps[number] for number in chunk)
        states = [
            _behind(lm, opening, [row["continuation_ids"] for row in own], longest)
            for opening in (
                [given[row["prompt"]] for row in own],
                [row["prompt_ids"] for row in own],
            )
        ]
        divergence = _divergence(lm, *states)
        for place, number in enumerate(chunk):
            kl[number] = float(divergence[place, : steps[number]].mean())
            if not math.isfinite(kl[number]):
                raise not_finite(lm, "divergence: a next-token distribution")
    return pl.DataFrame(
        {"completion_id": completions["completion_id"], "kl": kl}, schema=DIVERGENCE_SCHEMA
    ).fill_nan(None)


def _behind(
    lm: LanguageModel,
    opening: Sequence[list[int]],
    continuations: Sequence[list[int]],
    steps: int,
) -> Float[Tensor, "rows steps d_model"]:
    """Final states from the last token of each opening on; of the last ones where a continuation
    has fewer."""
    texts = [[*first, *then] for first, then in zip(opening, continuations, strict=True)]
    states = final_states(lm, padded(lm, texts))
    start = torch.tensor([len(first) - 1 for first in opening], device=lm.device)
    step = torch.arange(steps, device=lm.device)
    places = (start[:, None] + step).clamp_max(states.shape[1] - 1)
    return states[torch.arange(len(texts), device=lm.device)[:, None], places]


def _whole(
    lm: LanguageModel,
    hook: str,
    texts: Sequence[list[int]],
    additions: Float[Tensor, "rows d_model"],
) -> tuple[Float[Tensor, "rows pos d_model"], Float[Tensor, "rows pos d_model"]]:
    """Final states, steered and unsteered; what lies below the hook is run once for both."""
    layer = parse_hook(hook).layer
    resid = run_prefix(lm, padded(lm, texts), layer)
    steered = resid + additions[:, None].to(resid)
    return suffix_states(lm, steered, layer), suffix_states(lm, resid, layer)


def _after(
    lm: LanguageModel,
    hook: str,
    prompt: Sequence[int],
    texts: Sequence[list[int]],
    additions: Float[Tensor, "rows d_model"],
) -> tuple[Float[Tensor, "rows pos d_model"], Float[Tensor, "rows pos d_model"]]:
    """The same from the last token of a long prompt on, which is run once, and once for every
    scale."""
    follow = padded(lm, [tokens[len(prompt) :] for tokens in texts])
    different, which = torch.unique(additions, dim=0, return_inverse=True)
    which = which.to(lm.device)
    prompts = torch.tensor([list(prompt)] * len(different), device=lm.device)
    passes = iter((different, additions))  # the prompts', then the continuations'
    with attach(lm, [(hook, lambda resid: resid + next(passes)[:, None].to(resid))]):
        steered = states_after(lm, prompts, which, follow)
    return steered, states_after(lm, prompts, which, follow)  # in the same shape: 0 is 0


def _divergence(
    lm: LanguageModel,
    steered: Float[Tensor, "rows pos d_model"],
    unsteered: Float[Tensor, "rows pos d_model"],
) -> Float[Tensor, "rows pos"]:
    """From final states, a part of the logits at a time."""
    chunks = []
    for part in position_chunks(lm, unsteered.shape[:2].numel()):
        moved, usual = (
            unembed(lm, states.flatten(0, 1)[part]).float().log_softmax(-1)
            for states in (steered, unsteered)
        )
        chunks.append((moved.exp() * (moved - usual)).sum(-1).double().clamp_min(0).cpu())
    return torch.cat(chunks).view(unsteered.shape[:2])
