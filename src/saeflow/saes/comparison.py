"""What a crosscoder finds in its sources: how faithful it is to each, and which latents belong to
which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float64, Integer
from torch import Tensor

from saeflow.activations.exclusion import capture_kept
from saeflow.config.sections import Activations
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.exhaustion import halve_batch_on_oom
from saeflow.models.hooks import check_hook
from saeflow.models.language_model import LanguageModel
from saeflow.saes.crosscoder import Crosscoder, LatentScaling, latent_scaling
from saeflow.saes.evaluation import (
    CACHED,
    EXHAUSTED,
    Fidelity,
    Passage,
    blocks_per_pass,
    decoder_cosines,
    fidelity_metrics,
    mean_of_kept,
    prediction_metrics,
    prediction_sums,
    rows_in_parts,
    with_errors,
)

LATENTS = {
    "latent": pl.Int64,
    "source": pl.Int64,
    "model": pl.String,
    "hook": pl.String,
    "density": pl.Float64,
    "relative_norm": pl.Float64,
    "owner": pl.Boolean,
    "beta_error": pl.Float64,
    "beta_reconstruction": pl.Float64,
    "nu_error": pl.Float64,
    "nu_reconstruction": pl.Float64,
}


class Seen(NamedTuple):
    """One source of a crosscoder.

    Attributes:
        name: of the model.
        lm: the model.
        hook: where it is read.
    """

    name: str
    lm: LanguageModel
    hook: str


@torch.no_grad()
def evaluate_crosscoder(
    crosscoder: Crosscoder,
    sources: Sequence[Seen],
    blocks: TokenBlocks,
    batch: int | None = None,
    settings: Activations = CACHED,
    cached: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Metrics of a crosscoder on held-out text, and how its latents lie in its sources.

    Every model is run as it is and with one source at a time replaced, as `evaluate_sae` does it
    for an SAE; what one of the models leaves out counts for none.

    Args:
        crosscoder: on any device; moved to the models'.
        sources: in the crosscoder's order.
        blocks: tokens ``[blocks, pos]``.
        batch: blocks per pass, halved where memory runs out; changes the metrics only by rounding.
        settings: of the study's caches, of which ``exclude`` and ``exclude_norm_above`` count.
        cached: by model the hooks of the study's caches, whose norms count.

    Returns:
        ``explained_variance`` (the mean over sources) and ``l0`` with standard errors, ``dead`` and
        ``dense``, ``decoder_cosines``, what they are taken over, and under ``sources`` what
        `evaluate_sae` measures, by source; then the table of `latent_table`.

    Raises:
        SaeflowError: a hook does not exist, the crosscoder has another number of sources or another
            width, no position is kept, or not even one block fits into memory.
    """
    if len(sources) != crosscoder.n_sources:
        raise SaeflowError(
            f"crosscoder: reads {crosscoder.n_sources} sources, and {len(sources)} are given; name "
            "all"
        )
    for source in sources:
        check_hook(source.lm, source.hook)
    device = sources[0].lm.device
    crosscoder = crosscoder.to(device)
    tokens = torch.from_numpy(blocks.tokens).long()

    def measure(batch: int) -> tuple[dict[str, Any], pl.DataFrame]:
        parts = [part.to(device) for part in torch.split(tokens, batch)]
        return _measured(crosscoder, _Text(sources, parts, settings, cached))

    (metrics, table), _ = halve_batch_on_oom(
        batch or blocks_per_pass(sources[0].lm, tokens.shape[1]), measure, 1, EXHAUSTED
    )
    return metrics | {"blocks": len(tokens), "tokens": tokens.numel()}, table


@torch.no_grad()
def evaluate_difference(
    crosscoder: Crosscoder,
    sources: Sequence[Seen],
    blocks: TokenBlocks,
    settings: Activations = CACHED,
    cached: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Metrics of an SAE of a difference on held-out text.

    The second model goes on from the first one's activations, to which the difference is added: as
    the SAE rebuilds it, not at all (``loss_zero``), or its mean.

    Args:
        crosscoder: of `difference_as_crosscoder`, on any device; moved to the models'.
        sources: the two, in its order.
        blocks: tokens ``[blocks, pos]``.
        settings, cached: as of `evaluate_crosscoder`.

    Returns:
        As `evaluate_sae`.

    Raises:
        SaeflowError: as `evaluate_crosscoder`.
    """
    for source in sources:
        check_hook(source.lm, source.hook)
    lm, hook = sources[1].lm, sources[1].hook
    crosscoder = crosscoder.to(lm.device)
    tokens = torch.from_numpy(blocks.tokens).long()

    def measure(batch: int) -> tuple[Fidelity, dict[str, Float64[np.ndarray, " blocks"]]]:
        text = _Text(
            sources, [part.to(lm.device) for part in torch.split(tokens, batch)], settings, cached
        )
        mean, _ = mean_of_kept((x[:, 1] - x[:, 0], kept) for x, kept in text.rows())
        fidelity = Fidelity(mean, crosscoder.d_sae, len(tokens))
        sums: defaultdict[str, list[Tensor]] = defaultdict(list)
        first = 0
        for part, (x, kept) in zip(text.parts, text.rows(), strict=True):
            block, rebuilt = first + kept.nonzero()[:, 0], torch.empty_like(x[:, 1])
            for rows in rows_in_parts(len(x), crosscoder.d_sae, x.device):
                latents = crosscoder.encode(x[rows])
                rebuilt[rows] = crosscoder.decode(latents)[:, 1]
                fidelity.add(x[rows, 1] - x[rows, 0], rebuilt[rows], latents, block[rows])
            beneath = x.new_zeros(*kept.shape, x.shape[-1])
            beneath[kept] = x[:, 0]
            replace = partial(_replaced, kept, x[:, 0] + rebuilt)
            passage = Passage(lm, part, kept, first)
            measured = prediction_sums(passage, hook, replace, mean, beneath=beneath)
            for name, values in measured.items():
                sums[name].append(values)
            first += len(part)
        return fidelity, {name: torch.cat(values).numpy() for name, values in sums.items()}

    batch = blocks_per_pass(lm, tokens.shape[1])
    (fidelity, predictions), _ = halve_batch_on_oom(batch, measure, 1, EXHAUSTED)
    of_rows = fidelity.sums()
    return {
        **with_errors(of_rows, lambda of: fidelity_metrics(of, crosscoder.d_model)),
        **with_errors(predictions, prediction_metrics),
        **fidelity.latents(),
        "decoder_cosines": decoder_cosines(crosscoder.W_dec[:, 1]),
        "blocks": len(tokens),
        "tokens": tokens.numel(),
        "rows": int(of_rows["rows"].sum()),
        "predicted": int(predictions["predicted"].sum()),
    }


class _Text(NamedTuple):
    """Text as the sources see it, pass by pass."""

    sources: Sequence[Seen]
    parts: Sequence[Integer[Tensor, "blocks pos"]]
    settings: Activations
    cached: Mapping[str, Sequence[str]]

    def rows(
        self,
    ) -> Iterator[tuple[Float[Tensor, "rows n_sources d_model"], Bool[Tensor, "blocks pos"]]]:
        """Of every pass the activations that are kept, and where these are."""
        return (
            read_sources(self.sources, tokens, self.settings, self.cached) for tokens in self.parts
        )


def _measured(crosscoder: Crosscoder, text: _Text) -> tuple[dict[str, Any], pl.DataFrame]:
    sources, device = text.sources, text.parts[0].device
    mean_of = mean_of_kept((x.flatten(1), where) for x, where in text.rows())[0].view(
        crosscoder.n_sources, -1
    )
    blocks, first = sum(map(len, text.parts)), 0
    fidelities = [Fidelity(mean, crosscoder.d_sae, blocks) for mean in mean_of]
    predictions: list[defaultdict[str, list[Tensor]]] = [defaultdict(list) for _ in sources]
    for tokens, (x, where) in zip(text.parts, text.rows(), strict=True):
        block, rebuilt = first + where.nonzero()[:, 0], torch.empty_like(x)
        for part in rows_in_parts(len(x), crosscoder.d_sae, device):
            latents = crosscoder.encode(x[part])
            rebuilt[part] = crosscoder.decode(latents)
            for index, fidelity in enumerate(fidelities):
                fidelity.add(x[part, index], rebuilt[part, index], latents, block[part])
        for index, source in enumerate(sources):
            passage = Passage(source.lm, tokens, where, first)
            replace = partial(_replaced, where, rebuilt[:, index])
            sums = prediction_sums(passage, source.hook, replace, mean_of[index])
            for name, values in sums.items():
                predictions[index][name].append(values)
        first += len(tokens)
    rows = (
        x[part] for x, _ in text.rows() for part in rows_in_parts(len(x), crosscoder.d_sae, device)
    )
    scaling = latent_scaling(crosscoder, rows, crosscoder.owners())
    metrics = _metrics(crosscoder, sources, fidelities, predictions)
    return metrics, latent_table(crosscoder, sources, scaling, fidelities[0].density())


def latent_table(
    crosscoder: Crosscoder,
    sources: Sequence[Seen],
    scaling: LatentScaling,
    density: Float64[Tensor, " d_sae"],
) -> pl.DataFrame:
    """One row per latent and source.

    Args:
        scaling: of the owners.
        density: share of the tokens on which each latent fires.

    Returns:
        latent, source (index), model, hook, density, relative_norm, owner (its norm is largest
        here), beta_error, beta_reconstruction, and nu_error, nu_reconstruction (relative to the
        owner's; null where the latent is silent).
    """
    d_sae, n_sources = crosscoder.d_sae, crosscoder.n_sources
    nu_error, nu_reconstruction = scaling.ratios()
    numbers = {
        "relative_norm": crosscoder.relative_norms(),
        "beta_error": scaling.error,
        "beta_reconstruction": scaling.reconstruction,
        "nu_error": nu_error,
        "nu_reconstruction": nu_reconstruction,
    }
    index = np.tile(np.arange(n_sources), d_sae)
    columns: dict[str, Any] = {
        "latent": np.repeat(np.arange(d_sae), n_sources),
        "source": index,
        "model": [sources[at].name for at in index],
        "hook": [sources[at].hook for at in index],
        "density": density.cpu().numpy().repeat(n_sources),
        "owner": index == crosscoder.owners().cpu().numpy().repeat(n_sources),
        **{name: value.double().cpu().flatten().numpy() for name, value in numbers.items()},
    }
    table = pl.DataFrame({name: columns[name] for name in LATENTS}, schema=LATENTS)
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in numbers]
    return table.with_columns(finite)


@torch.no_grad()
def read_sources(
    sources: Sequence[Seen],
    tokens: Integer[Tensor, "blocks pos"],
    settings: Activations = CACHED,
    cached: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[Float[Tensor, "rows n_sources d_model"], Bool[Tensor, "blocks pos"]]:
    """The activations of all sources that are kept, and where; one pass per model.

    Args:
        sources: models and hooks.
        tokens: on the models' device.
        settings: of the study's caches, of which ``exclude`` and ``exclude_norm_above`` count.
        cached: by model the hooks of the study's caches, whose norms count.

    Raises:
        SaeflowError: two sources differ in width.
    """
    hooks: dict[str, list[str]] = {}
    for source in sources:
        hooks.setdefault(source.name, []).append(source.hook)
    models = {source.name: source.lm for source in sources}
    seen = {
        name: capture_kept(models[name], tokens, wanted, settings, cached.get(name, ()))
        for name, wanted in hooks.items()
    }
    kept = torch.stack([where for _, where in seen.values()]).all(dim=0)
    activations = [seen[source.name][0][source.hook][kept].float() for source in sources]
    if len({x.shape[-1] for x in activations}) > 1:
        named = zip(sources, activations, strict=True)
        widths = ", ".join(f"{source.hook} of {source.name}: {x.shape[-1]}" for source, x in named)
        raise SaeflowError(
            f"crosscoder: its sources differ in width ({widths}); read hooks of one width"
        )
    return torch.stack(activations, dim=1), kept


def _replaced(
    kept: Bool[Tensor, "blocks pos"], rebuilt: Float[Tensor, "rows d_model"], x: Tensor
) -> Tensor:
    return x.masked_scatter(kept[..., None], rebuilt.to(x.dtype))


def _metrics(
    crosscoder: Crosscoder,
    sources: Sequence[Seen],
    fidelities: Sequence[Fidelity],
    predictions: Sequence[dict[str, list[Tensor]]],
) -> dict[str, Any]:
    by_source: list[dict[str, Any]] = []
    sums: dict[str, Float64[np.ndarray, " blocks"]] = {}
    for index, (source, fidelity) in enumerate(zip(sources, fidelities, strict=True)):
        of_rows = fidelity.sums()
        of_text = {name: torch.cat(values).numpy() for name, values in predictions[index].items()}
        sums |= {f"{name}{index}": values for name, values in of_rows.items()}
        by_source.append(
            {
                "model": source.name,
                "hook": source.hook,
                **with_errors(of_rows, lambda sums: fidelity_metrics(sums, crosscoder.d_model)),
                **with_errors(of_text, prediction_metrics),
            }
        )
    places = range(len(sources))
    together = with_errors(
        sums,
        lambda of: {
            "explained_variance": 1
            - sum(of[f"error{at}"] / of[f"scatter{at}"] for at in places) / len(places),
            "l0": of["active0"] / of["rows0"],
        },
    )
    return {
        **together,
        **fidelities[0].latents(),
        "decoder_cosines": decoder_cosines(crosscoder.W_dec.flatten(1)),
        "sources": by_source,
        "rows": int(sums["rows0"].sum()),
        "predicted": int(of_text["predicted"].sum()),
    }
