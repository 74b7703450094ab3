"""What single latents fire on, in either model, and what their directions do to the logits."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saeflow.analyses.diffing.lens import extreme_tokens
from saeflow.analyses.diffing.scaling import Sides, as_if_both_were
from saeflow.analyses.diffing.settings import Shown
from saeflow.analyses.diffing.texts import Text
from saeflow.saes.crosscoder import Crosscoder
from saeflow.seeds import torch_generator

CONTEXTS = {
    "model": pl.String,
    "latent": pl.Int64,
    "rank": pl.Int32,
    "activation": pl.Float64,
    "activation_base": pl.Float64,
    "activation_tuned": pl.Float64,
    "block": pl.Int32,
    "position": pl.Int32,
    "before": pl.String,
    "token": pl.String,
}
SCATTER = {
    "model": pl.String,
    "latent": pl.Int64,
    "activation": pl.Float64,
    "activation_base": pl.Float64,
    "activation_tuned": pl.Float64,
}
DECODERS = {
    "model": pl.String,
    "latent": pl.Int64,
    "side": pl.String,
    "rank": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "weight": pl.Float64,
}


def shown_latents(latents: pl.DataFrame, settings: Shown) -> list[int]:
    """Of every class but the dead, the latents that contribute most to the difference; those that
    contribute most of all come first."""
    alive = latents.filter(pl.col("class") != "dead")
    most = alive.sort("contribution", descending=True, maintain_order=True)
    chosen = most.group_by("class", maintain_order=True).head(settings.latents)
    in_order = chosen.sort("contribution", descending=True, maintain_order=True)
    return in_order["latent"].to_list()


@torch.no_grad()
def drawn_activations(
    crosscoder: Crosscoder,
    sides: Sides,
    text: Text,
    latents: list[int],
    settings: Shown,
    seed: int,
) -> pl.DataFrame:
    """What latents would be in either model at tokens drawn at random among those where they are
    above zero in one of them or in both together; memory does not grow with the text.

    Args:
        crosscoder: on the models' device.
        sides: the two models.
        text: all sources of the crosscoder, in its order.
        latents: which.
        settings: how many tokens of each.
        seed: of the study.

    Returns:
        The columns of `SCATTER`: the latent itself, and as if both models were the base or the
        tuned one. An SAE of the difference has no such points.
    """
    model = text.sources[sides.tuned[0]].name
    part = part_of(crosscoder, latents)
    generator = torch_generator(seed, "diffing", "scatter")
    key = torch.zeros(0, len(latents))
    points = torch.zeros(0, 3, len(latents))
    for passed in () if crosscoder.of_difference else text.passes():
        alone = [as_if_both_were(part, sides, passed.x, side) for side in (0, 1)]
        values = torch.stack([part.encode(x) for x in (passed.x, *alone)], dim=1).cpu()
        drawn = torch.rand(len(values), len(latents), generator=generator)
        drawn = drawn.masked_fill(~(values > 0).any(1), -1.0)
        key, points = torch.cat([key, drawn]), torch.cat([points, values])
        key, order = key.topk(min(settings.points, len(key)), dim=0)
        points = points.gather(0, order[:, None].expand(-1, 3, -1))
    rows = [
        (model, latent, *points[place, :, column].tolist())
        for column, latent in enumerate(latents)
        for place in (key[:, column] >= 0).nonzero()[:, 0].tolist()
    ]
    return pl.DataFrame(rows, schema=SCATTER, orient="row")


@torch.no_grad()
def find_contexts(
    crosscoder: Crosscoder, sides: Sides, text: Text, latents: list[int], settings: Shown
) -> pl.DataFrame:
    """Where latents are most active, one place of a block, in memory that does not grow with the
    text.

    Args:
        crosscoder: on the models' device.
        sides: the two models.
        text: all sources of the crosscoder, in its order.
        latents: which.
        settings: how many places.

    Returns:
        The columns of `CONTEXTS`: ``activation_base`` and ``activation_tuned`` are what the latent
        would be there if both models were that one, null of an SAE of the difference.
    """
    part = part_of(crosscoder, latents)
    best = torch.zeros(0, len(latents), device=part.b_enc.device)
    alone = torch.zeros(0, 2, len(latents), device=best.device)
    place: Int64[Tensor, "kept latents 2"] = torch.zeros(
        0, len(latents), 2, dtype=torch.long, device=best.device
    )
    for passed in text.passes():
        values = _over_blocks(part.encode(passed.x), passed.kept)
        strongest, where = values.max(dim=1)
        both = [
            _over_blocks(
                part.encode(as_if_both_were(part, sides, passed.x, side)), passed.kept
            ).gather(1, where[:, None])[:, 0]
            for side in (0, 1)
        ]
        block = torch.arange(len(where), device=where.device) + passed.first
        places = torch.stack([block[:, None].expand_as(where), where], dim=-1)
        best = torch.cat([best, strongest])
        alone = torch.cat([alone, torch.stack(both, dim=1)])
        place = torch.cat([place, places])
        best, order = best.topk(min(settings.contexts, len(best)), dim=0)
        alone = alone.gather(0, order[:, None].expand(-1, 2, -1))
        place = place.gather(0, order[..., None].expand(-1, -1, 2))
    tokenizer = text.sources[0].lm.tokenizer
    rows = []
    for column, latent in enumerate(latents):
        for rank, value in enumerate(best[:, column].tolist()):
            if value <= 0:
                continue
            block_number, position = place[rank, column].tolist()
            ids = text.tokens[block_number]
            before = tokenizer.decode(ids[max(1, position - settings.window) : position])
            token = tokenizer.decode(ids[position : position + 1])
            of_models = [None, None]
            if not crosscoder.of_difference:
                of_models = alone[rank, :, column].tolist()
            values_of = (latent, rank, value, *of_models)
            rows.append((*values_of, block_number, position, before, token))
    model = text.sources[sides.tuned[0]].name
    schema = {name: kind for name, kind in CONTEXTS.items() if name != "model"}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.select(pl.lit(model).alias("model"), pl.all())


def decoder_tokens(
    crosscoder: Crosscoder, sides: Sides, text: Text, latents: list[int], settings: Shown
) -> pl.DataFrame:
    """The tokens that each model's direction of a latent raises most, through that model's own
    unembedding; of several hooks, at the last. An SAE of the difference has directions in the
    tuned model alone."""
    rows: list[tuple[object, ...]] = []
    for side, places in zip(("base", "tuned"), sides, strict=True):
        if crosscoder.of_difference and side == "base":
            continue
        directions = part_of(crosscoder, latents).W_dec
        lm = text.sources[places[-1]].lm
        weighed = extreme_tokens(lm, directions[:, places[-1]], settings.tokens, ["raised"])
        rows += [
            (latents[token.direction], side, token.rank, token.token_id, token.token, token.weight)
            for token in weighed
        ]
    model = text.sources[sides.tuned[0]].name
    schema = {name: kind for name, kind in DECODERS.items() if name != "model"}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.select(pl.lit(model).alias("model"), pl.all())


def part_of(crosscoder: Crosscoder, latents: list[int]) -> Crosscoder:
    """The crosscoder as if it had some of its latents alone."""
    places = torch.tensor(latents, dtype=torch.long, device=crosscoder.W_dec.device)
    return replace(
        crosscoder,
        W_enc=crosscoder.W_enc[:, :, places],
        W_dec=crosscoder.W_dec[places],
        b_enc=crosscoder.b_enc[places],
        threshold=None if crosscoder.threshold is None else crosscoder.threshold[places],
    )


def _over_blocks(
    values: Float[Tensor, "rows latents"], kept: Tensor
) -> Float[Tensor, "blocks pos latents"]:
    """Rows back at their places; zero where positions do not count."""
    placed = values.new_zeros(*kept.shape, values.shape[1])
    placed[kept] = values
    return placed
