"""What an SAE finds of features that are known: the labels of a planted corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.activations.exclusion import capture_kept
from saeflow.config.sections import Activations
from saeflow.corpora.tokens import TokenBlocks
from saeflow.models.language_model import LanguageModel
from saeflow.saes.evaluation import CACHED
from saeflow.saes.sae import SAE

RECOVERY: dict[str, pl.DataType | type[pl.DataType]] = {
    "label": pl.String,
    "feature": pl.String,
    "rows": pl.Int64,
    "latent_cosine": pl.Int64,
    "cosine": pl.Float64,
    "latent_f1": pl.Int64,
    "precision": pl.Float64,
    "recall": pl.Float64,
    "f1": pl.Float64,
    "detectors": pl.List(pl.Int64),
    "detectors_f1": pl.List(pl.Float64),
}
_DETECTORS = 20  # latents of which the F1 is told
_ROWS_AT_ONCE = 4096


def planted_recovery(
    lm: LanguageModel,
    sae: SAE,
    hook: str,
    blocks: TokenBlocks,
    batch: int = 32,
    settings: Activations = CACHED,
    cached: Sequence[str] = (),
) -> pl.DataFrame:
    """How well latents stand for the features that label the tokens of held-out text; empty for
    text without labels.

    Args:
        lm: the model.
        sae: on any device.
        hook: where the SAE reads.
        blocks: tokens and labels.
        batch: blocks per pass; does not change the result.
        settings: of the study's caches; what they leave out counts for nothing here.
        cached: hooks of the study's caches of this model, whose norms count.

    Returns:
        The table of `recovery`.

    Raises:
        SaeflowError: the hook does not exist, or the SAE reads activations of another width.
    """
    if not blocks.labels:
        return pl.DataFrame(schema=RECOVERY)
    tokens = torch.from_numpy(blocks.tokens).long().to(lm.device)
    hooks = list(dict.fromkeys([hook, sae.written_hook(hook)]))
    parts = [capture_kept(lm, part, hooks, settings, cached) for part in torch.split(tokens, batch)]
    read, *others = (torch.cat([of[name][kept] for of, kept in parts]) for name in hooks)
    kept = torch.cat([kept for _, kept in parts]).cpu().numpy()
    labels = {name: values[kept] for name, values in blocks.labels.items()}
    return recovery(sae.to(lm.device), read, labels, blocks.label_names, *others)


@torch.no_grad()
def recovery(
    sae: SAE,
    activations: Float[Tensor, "rows d_model"],
    labels: Mapping[str, Integer[np.ndarray[Any, Any], " rows"]],
    label_names: Mapping[str, Sequence[str]],
    written: Float[Tensor, "rows d_out"] | None = None,
) -> pl.DataFrame:
    """How well latents stand for features that are known: one row per class of each label.

    The planted direction of a class is the difference between the mean activations with and without
    it. One latent is the best by the cosine of its decoder row with that direction, one by the F1
    of its firing as a sign of the class.

    Args:
        sae: the SAE.
        activations: raw, as the SAE reads them, and on its device.
        labels: per label the class of every row.
        label_names: per label the names of its classes.
        written: raw, what a transcoder writes; its decoder's rows are directions there.

    Returns:
        label, feature, rows (that show it), latent_cosine, cosine, latent_f1, precision, recall,
        f1, and the latents of the largest F1, best first, with it; classes that are on no row or on
        all are left out.
    """
    tables = []
    directions = activations if written is None else written
    for label, classes in labels.items():
        numbers = np.arange(len(label_names[label]))
        members = torch.from_numpy(np.asarray(classes)[:, None] == numbers).to(directions.device)
        fired, both = _firing_by_class(sae, activations, members)
        sums = directions.new_zeros(len(numbers), directions.shape[1], dtype=torch.float64)
        for x, member in _in_parts(directions, members):
            sums += member.double().T @ x.double()
        count = members.sum(dim=0).double()
        partial = (count > 0) & (count < len(members))
        means = sums / count[:, None]
        others = (sums.sum(dim=0) - sums) / (len(members) - count)[:, None]
        cosines = normalize(means - others, dim=1) @ normalize(sae.W_dec.double(), dim=1).T
        cosines, count, fired, both = cosines.cpu(), count.cpu(), fired.cpu(), both.cpu()
        f1 = 2 * both / (fired + count[:, None])
        for index in partial.nonzero()[:, 0].tolist():
            aligned = int(cosines[index].argmax())
            order = f1[index].argsort(descending=True, stable=True)[:_DETECTORS]
            detector = int(order[0])
            hits = float(both[index, detector])
            tables.append(
                {
                    "label": label,
                    "feature": label_names[label][index],
                    "rows": int(count[index]),
                    "latent_cosine": aligned,
                    "cosine": float(cosines[index, aligned]),
                    "latent_f1": detector,
                    "precision": hits / max(1.0, float(fired[detector])),
                    "recall": hits / float(count[index]),
                    "f1": float(f1[index, detector]),
                    "detectors": order.tolist(),
                    "detectors_f1": f1[index, order].tolist(),
                }
            )
    return pl.DataFrame(tables, schema=RECOVERY)


def _firing_by_class(sae: SAE, activations: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Rows on which each latent fires, and rows of a class on which it does; fp64."""
    fired = activations.new_zeros(sae.d_sae, dtype=torch.float64)
    both = activations.new_zeros(members.shape[1], sae.d_sae, dtype=torch.float64)
    for x, member in _in_parts(activations, members):
        firing = (sae.encode(x) > 0).float()
        fired += firing.sum(dim=0)
        both += member.float().T @ firing
    return fired, both


def _in_parts(activations: Tensor, members: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows at a time, and of which classes they are."""
    both = (torch.split(rows, _ROWS_AT_ONCE) for rows in (activations, members))
    return zip(*both, strict=True)


def recovery_metrics(table: pl.DataFrame) -> dict[str, float]:
    """Means over the planted features, their standard errors, and how many features there are;
    nothing without any.

    Args:
        table: from `recovery`.
    """
    if table.is_empty():
        return {}
    metrics: dict[str, float] = {"planted_features": len(table)}
    for column in ("cosine", "f1"):
        values = table[column].to_numpy()
        metrics[f"planted_{column}"] = float(values.mean())
        several = len(values) > 1
        se = float(values.std(ddof=1) / len(values) ** 0.5) if several else 0.0
        metrics[f"planted_{column}_se"] = se
    return metrics
