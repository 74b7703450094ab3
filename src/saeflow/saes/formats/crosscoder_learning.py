"""Crosscoders of the library crosscoder_learning (``ae.pt``, ``config.json``), in this library's
terms.

Source: Minder, Dumas et al. 2025, arXiv 2504.02922, and the library's own `encode`, which chooses
by the running threshold of its training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saeflow.artifacts import read_json
from saeflow.errors import SaeflowError
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.formats.tensors import check_widths, checked, read_named

CLASSES = ("CrossCoder", "BatchTopKCrossCoder")
NORMALISERS = ("activation_mean", "activation_std", "activation_global_scale", "target_rms")
"""Its tensors that say how activations are normalised."""
_SMALL = 1e-8  # which the library adds before it divides
# What a latent's value is multiplied by before it is held against the threshold, by the number that
# the file has: of the norms of its decoder rows, one per source.
_BY_NORMS: dict[int, Callable[[Tensor, dict[str, Any]], Tensor]] = {
    1: lambda norms, _: norms.sum(dim=0),
    2: lambda norms, _: norms.square().sum(dim=0).sqrt(),
    3: lambda norms, trainer: (
        norms.square().sum(dim=0).sqrt() * _alpha(trainer, "sae", 1.0)
        + norms.sum(dim=0) * _alpha(trainer, "cc", 0.1)
    ),
    4: lambda norms, _: torch.ones_like(norms[0]),
}


def is_crosscoder(directory: Path) -> bool:
    """Whether a folder holds a crosscoder in this layout."""
    path = directory / "config.json"
    if not (directory / "ae.pt").is_file() or not path.is_file():
        return False
    return _trainer(read_json(path)).get("dict_class") in CLASSES


def load(directory: Path) -> Crosscoder:
    """Read a crosscoder, its normalisation folded and every latent in the unit in which its decoder
    rows, over all sources together, have norm 1.

    Raises:
        SaeflowError: a file is damaged, a shape is wrong, a weight is not finite, or it chooses
            latents for each source by themselves.
    """
    path = directory / "ae.pt"
    trainer = _trainer(read_json(directory / "config.json"))
    tensors = read_named(path)
    n_sources, d_model, d_sae = _shape(path, tensors)
    check_widths(directory, trainer, {"dict_size": d_sae})
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (n_sources, d_model, d_sae),
        "encoder.bias": (d_sae,),
        "decoder.weight": (n_sources, d_sae, d_model),
        "decoder.bias": (n_sources, d_model),
    }
    kept = {name: tensor.double() for name, tensor in checked(path, tensors, shapes).items()}
    encoder, decoder = kept["encoder.weight"], kept["decoder.weight"]
    threshold = _threshold(path, tensors, decoder.norm(dim=2), trainer)
    b_enc, b_dec = kept["encoder.bias"], kept["decoder.bias"]
    scale = torch.ones(n_sources)
    if (normal := normaliser(path, tensors, (n_sources, d_model))) is not None:
        mean, read, spread = normal
        encoder = encoder * read[:, :, None]
        b_enc = b_enc - torch.einsum("sd,sdf->f", mean, encoder)
        decoder = decoder / (read + _SMALL)[:, None, :]
        b_dec = b_dec / (read + _SMALL) + mean
        scale = spread
    norms = decoder.square().sum(dim=(0, 2)).sqrt()
    norms = torch.where(norms > 0, norms, 1.0)
    weights: dict[str, Any] = {
        "W_enc": encoder * norms,
        "W_dec": (decoder / norms[:, None]).transpose(0, 1),
        "b_enc": b_enc * norms,
        "b_dec": b_dec,
        "scale": scale,
    }
    if threshold is not None:
        weights["threshold"] = threshold * norms
    return Crosscoder(
        **{name: tensor.float().contiguous() for name, tensor in weights.items()},
        metadata={"model_name": trainer["lm_name"]} if trainer.get("lm_name") else {},
    )


def _trainer(config: Any) -> dict[str, Any]:
    trainer = config.get("trainer") if isinstance(config, dict) else None
    return trainer if isinstance(trainer, dict) else {}


def _alpha(trainer: dict[str, Any], which: str, default: float) -> float:
    alpha = trainer.get(f"code_normalization_alpha_{which}")
    return default if alpha is None else float(alpha)


def _shape(path: Path, tensors: dict[str, Tensor]) -> tuple[int, int, int]:
    encoder = tensors.get("encoder.weight")
    if encoder is None or encoder.ndim != 3:
        raise SaeflowError(
            f"{path}: has no encoder.weight [sources, d_model, d_sae]; it is no crosscoder"
        )
    n_sources, d_model, d_sae = encoder.shape
    return n_sources, d_model, d_sae


def _threshold(
    path: Path, tensors: dict[str, Tensor], norms: Tensor, trainer: dict[str, Any]
) -> Tensor | None:
    """What each latent's value must exceed; None where any above zero counts."""
    threshold = tensors.get("threshold")
    if threshold is None or (threshold.numel() == 1 and float(threshold) < 0):
        if "k" in tensors:
            raise SaeflowError(
                f"{path}: has learned no threshold, without which BatchTopK chooses among a whole "
                "batch, so that latents depend on the rows beside; train it past its "
                "threshold_start_step"
            )
        return None
    by = int(tensors.get("code_normalization_id", torch.tensor(1)))
    if by not in _BY_NORMS or threshold.numel() != 1:
        raise SaeflowError(
            f"{path}: chooses latents for every source by itself (code normalisation DECOUPLED), "
            "which is not known here; choose another crosscoder"
        )
    by_norms = _BY_NORMS[by](norms, trainer)
    return float(threshold) / torch.where(by_norms > 0, by_norms, 1.0)


def normaliser(
    path: Path, tensors: dict[str, Tensor], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Mean of the activations, what their distance from it is multiplied by, both of every source
    and dimension, and each source's spread; None where activations are read as they are.

    Whether all dimensions of a source have one factor or each its own is not in the file but in
    what it has of the factor.
    """
    mean, deviation = tensors.get("activation_mean"), tensors.get("activation_std")
    if mean is None or deviation is None or mean.isnan().any() or deviation.isnan().any():
        return None
    checked(path, tensors, {"activation_mean": shape, "activation_std": shape})
    mean, deviation = mean.double(), deviation.double()
    spread = deviation.square().sum(dim=-1).sqrt()
    target = float(tensors.get("target_rms", torch.tensor(1.0)))
    kept = tensors.get("activation_global_scale", torch.ones(shape[:-1])).double()
    together = target / (spread.square() + _SMALL).sqrt()
    if torch.allclose(kept, together, rtol=1e-3):
        return mean, kept[..., None].expand(shape), spread
    return mean, 1 / (deviation + _SMALL), spread
