"""Steering vectors by method (arXiv 2411.02193, sections 4 and 5); every one has unit norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.models.running import capture
from saeflow.seeds import torch_generator

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel


@dataclass(frozen=True)
class VectorInputs:
    """What the methods need; each takes its part."""

    goal: str
    seed: int
    """Of the study."""
    targets: Mapping[int, float]
    """Weights of the target latents; negative ones are steered away from."""
    W_dec: Float[Tensor, "d_sae d_model"]
    M: Float[Tensor, "d_model d_sae"]
    b: Float[Tensor, " d_sae"]
    rotation: Float[Tensor, "d_model d_model"]
    """See `saeflow.effects.approximator.Approximation`."""
    positive: Float[Tensor, "texts d_model"]
    """One activation per text that shows the behaviour, from `text_activations`."""
    negative: Float[Tensor, "texts d_model"]
    bias_weight: float = 1.0
    """λ, weight of the bias direction that is subtracted."""

    @property
    def target(self) -> Float[Tensor, " d_sae"]:
        """The weights as a vector over all latents, float64."""
        target = torch.zeros(len(self.W_dec), dtype=torch.float64)
        for latent, weight in self.targets.items():
            if not 0 <= latent < len(target):
                raise SaeflowError(
                    f"goal {self.goal}: latent {latent} does not exist; the SAE has {len(target)} latents"
                )
            target[latent] = weight
        return target


def build_vector(method: str, inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The vector of one method, unit norm, float32.

    Raises:
        SaeflowError: an unknown method, a latent that does not exist, or a vector that comes out zero or not finite.
    """
    if method not in METHODS:
        raise SaeflowError(f"steering: there is no method '{method}'; there are {', '.join(METHODS)}")
    vector = METHODS[method](inputs)
    where = f"goal {inputs.goal}, method {method}"
    if vector.shape != inputs.W_dec.shape[1:]:
        raise SaeflowError(
            f"{where}: the vector has shape {tuple(vector.shape)} and the model is {inputs.W_dec.shape[1]} wide; "
            "its inputs are from another model"
        )
    if not torch.isfinite(vector).all():
        raise SaeflowError(f"{where}: the vector holds NaN or infinity; check its inputs")
    if vector.norm() < 1e-12:
        raise SaeflowError(f"{where}: the vector is zero; choose other target latents or examples that differ more")
    return (vector / vector.norm()).float()


def less_bias(
    directions: Float[Tensor, "... d_model"],
    M: Float[Tensor, "d_model d_sae"],
    b: Float[Tensor, " d_sae"],
    weight: float,
) -> Float[Tensor, "... d_model"]:
    """Directions at unit norm, less the direction that only serves the approximator's bias: ``u(v) - λ u(M b)``.

    Args:
        directions: one per row.
        M: of the approximator.
        b: of the approximator.
        weight: λ.

    Returns:
        float64, of any norm.
    """
    return _unit(directions) - weight * _unit(M.double().cpu() @ b.double().cpu())


def caa(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """Contrastive activation addition: mean over texts that show the behaviour, minus mean over those that do not."""
    return inputs.positive.double().cpu().mean(0) - inputs.negative.double().cpu().mean(0)


def sae(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The target latents' unit decoder rows, weighted."""
    return inputs.target @ _unit(inputs.W_dec)


def sae_ts(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """SAE-Targeted Steering: the direction that moves the targets most, less the one that only serves the bias."""
    return _less_bias(inputs.M.double().cpu() @ inputs.target, inputs)


def pinverse(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The least-squares vector whose effects are the targets and nothing else, ``t pinv(M)``.

    The published form solves for ``t / |t| - b`` and keeps the norm, so that it mostly undoes the bias and meets other
    scales than the methods it is compared with.
    """
    M = inputs.M.double().cpu()
    return torch.linalg.pinv(M @ M.T, hermitian=True) @ (M @ inputs.target)


def rotation(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The vector of `sae` turned by one rotation that maps decoder rows to effect columns, less the bias direction."""
    return _less_bias(sae(inputs) @ inputs.rotation.double().cpu(), inputs)


def random(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """A uniformly random direction, the control."""
    generator = torch_generator(inputs.seed, "steering", "random", inputs.goal)
    return torch.randn(inputs.W_dec.shape[1], generator=generator, dtype=torch.float64)


METHODS: dict[str, Callable[[VectorInputs], Tensor]] = {
    "caa": caa,
    "sae": sae,
    "sae_ts": sae_ts,
    "pinverse": pinverse,
    "rotation": rotation,
    "random": random,
}


def text_activations(
    lm: LanguageModel, hook: str, texts: Sequence[str], positions: Literal["mean", "last"] = "mean"
) -> Float[Tensor, "texts d_model"]:
    """One activation per text, float32: the mean over its tokens or that of the last one; BOS never.

    Raises:
        SaeflowError: a text without tokens, or one that is longer than the model's context.
    """
    residuals = text_residuals(lm, hook, texts)
    return torch.stack([resid.mean(0) if positions == "mean" else resid[-1] for resid in residuals]).cpu()


def text_residuals(lm: LanguageModel, hook: str, texts: Sequence[str]) -> list[Float[Tensor, "pos d_model"]]:
    """Activations of every text without its BOS, float32; texts run one by one, so none sees padding.

    Raises:
        SaeflowError: a text without tokens, or one that is longer than the model's context.
    """
    found = []
    for text in texts:
        tokens = lm.tokenize(text)
        if len(tokens) < 2:
            raise SaeflowError(f"steering: the example {text!r} has no tokens; write some text")
        if len(tokens) > lm.context:
            raise SaeflowError(
                f"steering: the example {text[:40]!r}… has {len(tokens)} tokens and the model's context is "
                f"{lm.context}; shorten it"
            )
        resid = capture(lm, torch.tensor([tokens], device=lm.device), [hook])[hook]
        found.append(resid[0, 1:].float())
    return found


def _less_bias(direction: Float[Tensor, " d_model"], inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    return less_bias(direction, inputs.M, inputs.b, inputs.bias_weight)


def _unit(vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    return torch.nn.functional.normalize(vectors.double().cpu(), dim=-1)
