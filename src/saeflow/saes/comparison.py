"""What a crosscoder finds in its sources: how faithful it is to each, and which latents belong to which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor

from saeflow.activations.store import merge, statistics
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.hooks import check_hook
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture
from saeflow.saes.crosscoder import Crosscoder, LatentScaling, latent_scaling
from saeflow.saes.evaluation import (
    Fidelity,
    decoder_cosines,
    fidelity_metrics,
    prediction_metrics,
    prediction_sums,
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
    crosscoder: Crosscoder, sources: Sequence[Seen], blocks: TokenBlocks, batch: int = 32
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Metrics of a crosscoder on held-out text, and how its latents lie in its sources.

    Every model is run as it is and with one source at a time replaced, as `evaluate_sae` does it for an SAE.

    Args:
        crosscoder: on any device; moved to the models'.
        sources: in the crosscoder's order.
        blocks: tokens ``[blocks, pos]``; BOS is left out.
        batch: blocks per pass; changes the metrics only by rounding.

    Returns:
        ``explained_variance`` (the mean over sources) and ``l0`` with standard errors, ``dead`` and ``dense``,
        ``decoder_cosines``, what they are taken over, and under ``sources`` what `evaluate_sae` measures, by source;
        then the table of `latent_table`.

    Raises:
        SaeflowError: a hook does not exist, or the crosscoder has another number of sources or another width.
    """
    if len(sources) != crosscoder.n_sources:
        raise SaeflowError(f"crosscoder: reads {crosscoder.n_sources} sources, and {len(sources)} are given; name all")
    for source in sources:
        check_hook(source.lm, source.hook)
    device = sources[0].lm.device
    crosscoder = crosscoder.to(device)
    parts = list(torch.split(torch.from_numpy(blocks.tokens).long().to(device), batch))
    means = _means(sources, parts)
    fidelities = [Fidelity(mean, crosscoder.d_sae) for mean in means]
    predictions: list[defaultdict[str, list[Tensor]]] = [defaultdict(list) for _ in sources]
    for tokens in parts:
        x = _read(sources, tokens)
        latents = crosscoder.encode(x)
        rebuilt = crosscoder.decode(latents)
        for index, (source, fidelity) in enumerate(zip(sources, fidelities, strict=True)):
            fidelity.add(x[..., index, :], rebuilt[..., index, :], latents)
            for name, values in _spliced(source, tokens, rebuilt[..., index, :], means[index]).items():
                predictions[index][name].append(values)
    scaling = latent_scaling(crosscoder, (_read(sources, part).flatten(0, 1) for part in parts), crosscoder.owners())
    metrics = _metrics(crosscoder, sources, fidelities, predictions)
    metrics |= {"blocks": len(blocks.tokens), "tokens": blocks.tokens.size}
    return metrics, latent_table(crosscoder, sources, scaling, fidelities[0].density())


def latent_table(
    crosscoder: Crosscoder, sources: Sequence[Seen], scaling: LatentScaling, density: Float64[Tensor, " d_sae"]
) -> pl.DataFrame:
    """One row per latent and source.

    Args:
        scaling: of the owners.
        density: share of the tokens on which each latent fires.

    Returns:
        latent, source (index), model, hook, density, relative_norm, owner (its norm is largest here), beta_error,
        beta_reconstruction, and nu_error, nu_reconstruction (relative to the owner's; null where the latent is silent).
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


def _means(sources: Sequence[Seen], parts: Sequence[Tensor]) -> list[Float64[Tensor, " d_model"]]:
    seen = [[statistics(x) for x in _read(sources, tokens).flatten(0, 1).unbind(1)] for tokens in parts]
    return [torch.from_numpy(merge(of_one).mean) for of_one in zip(*seen, strict=True)]


def _read(
    sources: Sequence[Seen], tokens: Integer[Tensor, "blocks pos"]
) -> Float[Tensor, "blocks pos_1 n_sources d_model"]:
    """The activations of all sources, without BOS; one pass per model.

    Raises:
        SaeflowError: two sources differ in width.
    """
    hooks: dict[str, list[str]] = {}
    for source in sources:
        hooks.setdefault(source.name, []).append(source.hook)
    models = {source.name: source.lm for source in sources}
    read = {name: capture(models[name], tokens, wanted) for name, wanted in hooks.items()}
    found = [read[source.name][source.hook][:, 1:].float() for source in sources]
    if len({x.shape[-1] for x in found}) > 1:
        told = zip(sources, found, strict=True)
        widths = ", ".join(f"{source.hook} of {source.name}: {x.shape[-1]}" for source, x in told)
        raise SaeflowError(f"crosscoder: its sources differ in width ({widths}); read hooks of one width")
    return torch.stack(found, dim=2)


def _spliced(
    source: Seen,
    tokens: Integer[Tensor, "blocks pos"],
    rebuilt: Float[Tensor, "blocks pos_1 d_model"],
    mean: Float64[Tensor, " d_model"],
) -> dict[str, Float64[Tensor, " blocks"]]:
    def replace(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], rebuilt.to(x.dtype)], dim=1)

    return prediction_sums(source.lm, tokens, source.hook, replace, mean)


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
                **with_errors(of_rows, lambda some: fidelity_metrics(some, crosscoder.d_model)),
                **with_errors(of_text, prediction_metrics),
            }
        )
    places = range(len(sources))
    together = with_errors(
        sums,
        lambda some: {
            "explained_variance": 1 - sum(some[f"error{at}"] / some[f"scatter{at}"] for at in places) / len(places),
            "l0": some["active0"] / some["rows0"],
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
