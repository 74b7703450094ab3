"""Steering vectors by method (arXiv 2411.02193, sections 4 and 5, and 2501.09929).

`build_vector` brings all to unit norm; the functions of the methods return any norm. Where they
differ from the paper's released code, their docstrings say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.effects.approximation import Approximation, less_bias
from saeflow.analyses.steering.methods import BUILDING, PLANTED
from saeflow.errors import SaeflowError
from saeflow.seeds import torch_generator


@dataclass(frozen=True)
class VectorInputs:
    """What the methods need; each takes its part."""

    goal: str
    seed: int
    """Of the study."""
    targets: Mapping[int, float]
    """Weights of the target latents; negative ones are steered away from."""
    W_dec: Float[Tensor, "d_sae d_model"]
    positive: Float[Tensor, "texts d_model"]
    """One activation per text that shows the behaviour, from
    `saeflow.analyses.steering.examples.read_examples`."""
    negative: Float[Tensor, "texts d_model"]
    approximation: Approximation | None = None
    """Of the effects of vectors, for methods that are built from it."""
    bias_weight: float = 1.0
    """λ, weight of the bias direction that is subtracted."""
    differing: Mapping[int, float] = field(default_factory=dict)
    """`fgaa`: weights of its own targets, from `latents.differing_latents`."""
    pursued: Mapping[int, float] = field(default_factory=dict)
    """`pursuit`: weights of the decoder rows that it chose, from `latents.pursued_latents`."""
    pinverse_form: Literal["unit", "published"] = "unit"
    """See `pinverse`."""
    planted: Mapping[int, float] = field(default_factory=dict)
    """Methods that end in ``_planted``: weights of the latent that detects the goal's planted topic
    best."""

    @property
    def effects(self) -> Approximation:
        """The approximation of effects.

        Raises:
            SaeflowError: there is none.
        """
        if self.approximation is None:
            raise SaeflowError(
                f"goal {self.goal}: the method is built from the approximator of effects, and "
                "there is none; name it with --approximator"
            )
        return self.approximation

    @property
    def target(self) -> Float[Tensor, " d_sae"]:
        """The weights of the target latents as a vector over all latents, float64."""
        return self.over_all_latents(self.targets)

    def over_all_latents(self, weights: Mapping[int, float]) -> Float[Tensor, " d_sae"]:
        """Weights of some latents as a vector over all, float64.

        Raises:
            SaeflowError: a latent does not exist.
        """
        target = torch.zeros(len(self.W_dec), dtype=torch.float64)
        for latent, weight in weights.items():
            if not 0 <= latent < len(target):
                raise SaeflowError(
                    f"goal {self.goal}: latent {latent} does not exist; the SAE has {len(target)} "
                    "latents"
                )
            target[latent] = weight
        return target


class Built(NamedTuple):
    """The vector of one method."""

    vector: Float[Tensor, " d_model"]
    """Unit norm, float32."""
    norm: float
    """What multiplies every scale: 1 for all vectors but the published form of `pinverse`, whose
    own norm counts."""


def build_vector(method: str, inputs: VectorInputs) -> Built:
    """Build the vector of one method.

    Raises:
        SaeflowError: an unknown method, a latent that does not exist, or a vector that comes out
            zero or not finite.
    """
    if method not in BUILDERS:
        raise SaeflowError(
            f"steering: there is no method '{method}'; there are {', '.join(BUILDERS)}"
        )
    vector = BUILDERS[method](inputs)
    where = f"goal {inputs.goal}, method {method}"
    if vector.shape != inputs.W_dec.shape[1:]:
        raise SaeflowError(
            f"{where}: the vector has shape {tuple(vector.shape)} and the model is "
            f"{inputs.W_dec.shape[1]} wide; its inputs are from another model"
        )
    if not torch.isfinite(vector).all():
        raise SaeflowError(f"{where}: the vector holds NaN or infinity; check its inputs")
    if vector.norm() < 1e-12:
        raise SaeflowError(
            f"{where}: the vector is zero; choose other target latents or examples that differ more"
        )
    counts = method.removesuffix(PLANTED) == "pinverse" and inputs.pinverse_form == "published"
    norm = float(vector.norm()) if counts else 1.0
    return Built((vector / vector.norm()).float(), norm)


def caa(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """Contrastive activation addition: mean over texts that show the behaviour, minus mean over
    those that do not."""
    return inputs.positive.double().cpu().mean(0) - inputs.negative.double().cpu().mean(0)


def sae(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The target latents' unit decoder rows, weighted."""
    return inputs.target @ _unit(inputs.W_dec)


def sae_ts(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """SAE-Targeted Steering: the unit vector whose predicted effects raise the targets most, ``u(M
    t)``, less the direction ``u(M b)`` that serves the bias alone."""
    return _less_bias(inputs.effects.M.double().cpu() @ inputs.target, inputs)


def pinverse(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The shortest vector for which ``vector @ M`` comes closest to the targets and nothing else,
    ``t pinv(M)``.

    The bias of the approximator is left as it is: the predicted effects of the vector are these
    plus ``b``. The published form is ``(t / |t| - b) pinv(M)`` and keeps its norm, so that it
    mostly undoes the bias and meets other scales than the methods it is compared with.
    """
    M, wanted = inputs.effects.M.double().cpu(), inputs.target
    if inputs.pinverse_form == "published":
        wanted = _unit(wanted) - inputs.effects.b.double().cpu()
    return torch.linalg.pinv(M @ M.T, hermitian=True) @ (M @ wanted)


def rotation(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The vector of `sae` turned by the one rotation that best takes unit decoder rows to unit
    columns of ``M``, less the bias direction.

    The released code turns by the inverse of that rotation; see
    `saeflow.analyses.effects.approximation.procrustes`.
    """
    return _less_bias(sae(inputs) @ inputs.effects.rotation.double().cpu(), inputs)


def fgaa(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """Feature guided activation additions (arXiv 2501.09929): `sae_ts` for latents that differ
    between the examples."""
    return _less_bias(
        inputs.effects.M.double().cpu() @ inputs.over_all_latents(inputs.differing), inputs
    )


def pursuit(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """The sum of few decoder rows that comes close to the vector of `caa`. Rows and weights are as
    the SAE has them, of any norm."""
    return inputs.over_all_latents(inputs.pursued) @ inputs.W_dec.double().cpu()


def random(inputs: VectorInputs) -> Float[Tensor, " d_model"]:
    """A uniformly random direction, the control."""
    generator = torch_generator(inputs.seed, "steering", "random", inputs.goal)
    return torch.randn(inputs.W_dec.shape[1], generator=generator, dtype=torch.float64)


Builder = Callable[[VectorInputs], Tensor]


def _for_planted(method: Builder) -> Builder:
    """A method for the latent that is known to be the best, in place of those that were chosen."""
    return lambda inputs: method(replace(inputs, targets=inputs.planted))


_OWN = {method.name: globals()[method.name] for method in BUILDING}
BUILDERS: dict[str, Builder] = _OWN | {
    method.name + PLANTED: _for_planted(_OWN[method.name])
    for method in BUILDING
    if method.has_planted
}
"""By the name of the method."""


def _less_bias(
    direction: Float[Tensor, " d_model"], inputs: VectorInputs
) -> Float[Tensor, " d_model"]:
    return less_bias(direction, inputs.effects.M, inputs.effects.b, inputs.bias_weight)


def _unit(vectors: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    return torch.nn.functional.normalize(vectors.double().cpu(), dim=-1)
