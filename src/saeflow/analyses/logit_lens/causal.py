"""What the model does when a latent is added or taken away, beside what the logit lens says of it.

The lens looks at a latent's decoder row through the unembedding, as if nothing lay between. Here
the model runs: a latent is taken away at places where it fires, and added at places drawn at
random, and the log-probabilities of the next token are compared with those of the untouched model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from saeflow.models.hooks import attach, parse_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.norms import centres
from saeflow.models.running import clean_and_again, unembed
from saeflow.models.unembedding import final_norm, unembedding
from saeflow.models.vocabulary import Vocabulary
from saeflow.tables import Schema

_BYTES_AT_ONCE = 1 << 28  # of logits
_TOKENS_PER_PASS = 4096
TOKENS: Schema = {
    "latent": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "side": pl.String,
    "weight": pl.Float32,
    "predicted": pl.Float32,
    "addition": pl.Float32,
    "ablation": pl.Float32,
}
LATENTS: Schema = {
    "latent": pl.Int32,
    "set": pl.String,
    "contexts": pl.Int32,
    "added": pl.Float32,
    "r_predicted": pl.Float32,
    "r_addition": pl.Float32,
    "r_ablation": pl.Float32,
}


class LatentEdits(NamedTuple):
    """Places in the text where a latent is changed, and by how much."""

    tokens: Int[Tensor, "places pos"]
    positions: Int64[np.ndarray, " places"]
    amounts: Float[np.ndarray, " places"]
    """How much of the latent is added; negative takes it away."""

    def part(self, which: slice) -> LatentEdits:
        """Some of the places."""
        return LatentEdits(self.tokens[which], self.positions[which], self.amounts[which])


class Change(NamedTuple):
    """Mean change of the next token's log-probabilities over places, nats."""

    measured: Float[Tensor, " tokens"]
    predicted: Float[Tensor, " tokens"]
    """By the lens: the logits that go straight from the decoder row through final norm and
    unembedding."""


@torch.no_grad()
def change(
    lm: LanguageModel,
    hook: str,
    direction: Float[Tensor, " d_model"],
    places: LatentEdits,
    ids: Sequence[int],
) -> Change:
    """Measure what adding a direction at single positions does to the prediction there.

    Args:
        lm: the model.
        hook: where it is added.
        direction: a latent's decoder row.
        places: where, and how much; every place is a row of tokens of its own.
        ids: the tokens whose log-probabilities count.
    """
    weights = unembedding(lm, ids, ["final_norm"]) @ direction.float().to(lm.device)
    at_once = max(
        1, min(_BYTES_AT_ONCE // (4 * lm.d_vocab), _TOKENS_PER_PASS // places.tokens.shape[1])
    )
    sums = [torch.zeros(len(ids), dtype=torch.float64) for _ in Change._fields]
    for first in range(0, len(places.tokens), at_once):
        part = places.part(slice(first, first + at_once))
        for total, changes in zip(
            sums, _of_part(lm, hook, direction, weights, part, ids), strict=True
        ):
            total += changes.double().sum(dim=0).cpu()
    return Change(*(total / len(places.tokens) for total in sums))


def _of_part(
    lm: LanguageModel,
    hook: str,
    direction: Float[Tensor, " d_model"],
    weights: Float[Tensor, " tokens"],
    places: LatentEdits,
    ids: Sequence[int],
) -> tuple[Float[Tensor, "places tokens"], Float[Tensor, "places tokens"]]:
    """Measured and predicted changes at each place."""
    tokens = places.tokens.to(lm.device)
    rows = torch.arange(len(tokens), device=lm.device)
    positions = torch.from_numpy(places.positions).to(lm.device)
    amounts = torch.from_numpy(places.amounts).float().to(lm.device)

    def edit(resid: Tensor) -> Tensor:
        edited = resid.clone()
        edited[rows, positions] += (amounts[:, None] * direction.float().to(lm.device)).to(
            resid.dtype
        )
        return edited

    last = f"blocks.{lm.n_layers - 1}.hook_resid_post"
    chosen = torch.as_tensor(ids, device=lm.device)
    ends: list[Tensor] = []
    with attach(lm, [(last, ends.append)]):
        states, run_again = clean_and_again(lm, tokens, parse_hook(hook).layer)
    clean = unembed(lm, states[rows, positions]).float()
    resid = ends[0][rows, positions].float()
    with attach(lm, [(hook, edit)]):
        changed = unembed(lm, run_again()[rows, positions]).float()
    before = clean.log_softmax(-1)[:, chosen]
    pushed = clean.clone()
    pushed[:, chosen] = _pushed(
        lm, clean[:, chosen], amounts[:, None] * weights / _length(lm, resid)
    )
    return changed.log_softmax(-1)[:, chosen] - before, pushed.log_softmax(-1)[:, chosen] - before


def _length(lm: LanguageModel, resid: Float[Tensor, "places d_model"]) -> Float[Tensor, "places 1"]:
    """What the final norm divides the residual stream by."""
    if centres(final_norm(lm), lm.d_model):
        resid = resid - resid.mean(dim=1, keepdim=True)
    return resid.square().mean(dim=1, keepdim=True).sqrt()


def _pushed(
    lm: LanguageModel, given: Float[Tensor, "places tokens"], added: Float[Tensor, "places tokens"]
) -> Float[Tensor, "places tokens"]:
    """Logits with something added to them before the model's soft cap, where it has one."""
    cap = getattr(lm.model.config, "final_logit_softcapping", None)
    if not cap:
        return given + added
    return cap * torch.tanh(torch.atanh((given / cap).clamp(-1 + 1e-6, 1 - 1e-6)) + added / cap)


def clearest(
    enrichment: pl.DataFrame, latents: pl.DataFrame, alive: Sequence[int], count: int
) -> list[tuple[int, str | None]]:
    """Latents with the largest effect on a token set they raise, each latent and each set once.

    Where too few are enriched, those whose logit weights are skewed most to the right follow,
    without a set.

    Args:
        enrichment: latent, set, effect.
        latents: latent, skewness.
        alive: latents that fire somewhere.
        count: at most so many.
    """
    raised = enrichment.filter((pl.col("effect") > 0) & pl.col("latent").is_in(list(alive)))
    picked: dict[int, str | None] = {}
    for latent, name in (
        raised.sort("effect", "latent", descending=[True, False])
        .select("latent", "set")
        .iter_rows()
    ):
        if len(picked) < count and latent not in picked and name not in picked.values():
            picked[latent] = name
    skewed = latents.filter(pl.col("latent").is_in(list(alive))).sort(
        "skewness", "latent", descending=[True, False]
    )
    for latent in skewed["latent"]:
        if len(picked) < count:
            picked.setdefault(latent, None)
    return list(picked.items())


def token_rows(
    latent: int,
    weights: Float[np.ndarray, " tokens"],
    added: Change,
    ablated: Change,
    vocabulary: Vocabulary,
    k: int,
    generator: np.random.Generator,
) -> pl.DataFrame:
    """Rows of one latent: the tokens at either end of the lens, and as many others drawn at random.

    Args:
        latent: its number.
        weights: logit weights.
        added, ablated: measured changes.
        vocabulary: of the model.
        k: tokens of each kind.
        generator: of the draw.
    """
    order = np.argsort(-weights, kind="stable")
    k = min(k, len(order) // 3)
    others = np.sort(generator.choice(order[k : len(order) - k], k, replace=False))
    sides = {"top": order[:k], "bottom": order[::-1][:k], "random": others}
    at = np.concatenate(list(sides.values()))
    columns = {
        "latent": np.full(len(at), latent),
        "token_id": vocabulary.ids[at],
        "token": [vocabulary.texts[place] for place in at],
        "side": np.repeat(list(sides), k),
        "weight": weights[at],
        "predicted": added.predicted.numpy()[at],
        "addition": added.measured.numpy()[at],
        "ablation": ablated.measured.numpy()[at],
    }
    return pl.DataFrame(columns).select(pl.col(name).cast(kind) for name, kind in TOKENS.items())


def correlation(a: Float[np.ndarray, " tokens"], b: Float[np.ndarray, " tokens"]) -> float | None:
    """Pearson's, None where one of them does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else None
