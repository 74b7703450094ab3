"""Steering vectors, and what a model writes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.io import load_approximation
from saeflow.analyses.steering.completions import complete
from saeflow.analyses.steering.examples import ExampleActivations, bos_latents, read_examples
from saeflow.analyses.steering.io import SteeringVector
from saeflow.analyses.steering.latents import differing_latents, pursued_latents
from saeflow.analyses.steering.methods import BUILDING, BY_NAME
from saeflow.analyses.steering.settings import Completions, SteeringVectors
from saeflow.analyses.steering.vectors import VectorInputs, build_vector, caa
from saeflow.errors import SaeflowError
from saeflow.models.hooks import check_hook
from saeflow.models.language_model import LanguageModel
from saeflow.notebook.texts import Settings, listed, section
from saeflow.saes.sae import SAE
from saeflow.saes.subject import Subject

if TYPE_CHECKING:
    from saeflow.config.sections import Prompt

LEAST_SAMPLES = 4  # of a study's completions; fewer that are asked for are the first of these


def steering_vector(
    lm: LanguageModel,
    hook: str,
    method: str = "caa",
    *,
    positive: str | Sequence[str] = (),
    negative: str | Sequence[str] = (),
    sae: SAE | None = None,
    latents: int | Sequence[int] | Mapping[int, float] = (),
    approximator: Approximation | str | Path | None = None,
    density: Float[Tensor, " d_sae"] | None = None,
    settings: SteeringVectors | Settings | None = None,
    goal: str = "",
    seed: int = 0,
) -> SteeringVector:
    """Build a steering vector.

    Args:
        lm: the model.
        hook: where it will be added, and where texts are read.
        method: ``caa`` takes texts; ``sae`` takes an SAE and latents; ``sae_ts``, ``pinverse`` and
            ``rotation`` take an approximator of effects, too; ``fgaa`` takes texts, an SAE, its
            approximator and the density; ``pursuit`` takes texts and an SAE; ``random`` takes
            nothing.
        positive: texts that show the behaviour.
        negative: texts that do not.
        sae: whose latents are targeted; reads at ``hook``.
        latents: the targets: one, several of equal weight, or weights by latent, of which negative
            ones are steered away from.
        approximator: of the effects of vectors on the SAE's latents, or the folder of one, such as
            a study's ``effects/<sae>``.
        density: share of tokens on which each latent fires, the column ``density`` of a study's
            ``examples/<sae>/latents``.
        settings: what ``steering.vectors`` is in a config: ``bias_weight``, ``caa_positions``, …
        goal: what it is for; named in its metadata, and in the draw of ``random``.
        seed: of that draw.

    Returns:
        ``vector [d_model]`` of unit norm, float32, and ``metadata``: hook, goal, method, targets,
        and the norm that multiplies every scale.

    Raises:
        SaeflowError: there is no such method, hook or latent, something that the method takes is
            missing, or the vector comes out zero.

    Examples:
        >>> import saeflow as sf
        >>> lm = sf.load_model("models/tiny")
        >>> liked, other = ["I think the cat sat ."], ["a dog ran under the tree ."]
        >>> caa = sf.steering_vector(
        ...     lm, "blocks.1.hook_resid_post", positive=liked, negative=other
        ... )
        >>> caa.vector.shape, round(float(caa.vector.norm()), 6)
        (torch.Size([32]), 1.0)
        >>> sae = sf.load_sae("saes/tiny")
        >>> latent = sf.steering_vector(lm, "blocks.1.hook_resid_post", "sae", sae=sae, latents=5)
        >>> latent.metadata["targets"]
        {'5': 1.0}
    """
    check_hook(lm, hook)
    chosen = section(SteeringVectors, settings, "steering_vector")
    names = [each.name for each in BUILDING]
    if method not in names:
        raise SaeflowError(
            f"steering_vector: there is no method '{method}'; there are {', '.join(names)}"
        )
    traits = BY_NAME[method]
    targets = _weights(latents)
    _require(
        method,
        "positive and negative texts",
        method == "caa" or traits.needs_differing or traits.pursues,
        bool(positive) and bool(negative),
    )
    in_its_latents = traits.has_planted or traits.needs_differing or traits.pursues
    _require(method, "sae", in_its_latents, sae is not None)
    _require(method, "latents", traits.has_planted, bool(targets))
    _require(method, "approximator", traits.needs_effects, approximator is not None)
    _require(method, "density", traits.needs_differing, density is not None)
    reader = sae.to(lm.device) if sae else _no_latents(lm)
    subject = Subject(lm, reader, hook, seed)
    on, off = (_read(subject, texts) for texts in (positive, negative))
    differing: dict[int, float] = {}
    if traits.needs_differing and on and off and density is not None:
        difference = on.latents.mean(0) - off.latents.mean(0)
        from_bos = bos_latents(subject, torch.maximum(on.peak, off.peak))
        differing = differing_latents(difference, from_bos, density, chosen.fgaa)
    empty = torch.empty(0, lm.d_model)
    pooled = [getattr(texts, chosen.caa_positions) if texts else empty for texts in (on, off)]
    if isinstance(approximator, str | Path):
        approximator = load_approximation(Path(approximator))
    inputs = VectorInputs(
        goal=goal,
        seed=seed,
        targets=targets,
        W_dec=reader.W_dec.cpu(),
        positive=pooled[0],
        negative=pooled[1],
        approximation=approximator,
        bias_weight=chosen.bias_weight,
        differing=differing,
        pinverse_form=chosen.pinverse_form,
    )
    if traits.pursues:
        pursued = pursued_latents(caa(inputs), inputs.W_dec, chosen.pursuit)
        inputs = replace(inputs, pursued=pursued, targets=pursued)
    vector, norm = build_vector(method, inputs)
    aimed = differing if traits.needs_differing else inputs.targets
    return SteeringVector.towards(aimed, vector, hook=hook, goal=goal, method=method, norm=norm)


def steer(
    lm: LanguageModel,
    vector: SteeringVector | Float[Tensor, " d_model"],
    prompts: str | Sequence[Prompt],
    scales: float | Sequence[float],
    *,
    mean_norm: float = 1.0,
    hook: str | None = None,
    samples: int = 4,
    new_tokens: int = 24,
    sampling: Settings | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Have a model go on from prompts while a vector is added at every position.

    Completions of one prompt and number share their noise: they differ by what the vector does.

    Args:
        lm: the model.
        vector: from `steering_vector`, a study's, or any direction of the residual stream.
        prompts: texts, or lists of messages for a chat model.
        scales: how much is added, ``scale · mean_norm · vector``; 0 is unsteered, a negative scale
            steers away.
        mean_norm: the unit of scales: 1, or the mean norm of activations at the hook (of a study,
            ``study.activations["<model>/<hook>"].mean_norm``).
        hook: where it is added, if the vector does not say.
        samples: completions per prompt and scale.
        new_tokens: most tokens per completion.
        sampling: what ``sampling`` is in a config: ``temperature`` (0 is greedy), ``top_k``,
            ``top_p``.
        seed: of the noise.

    Returns:
        A row per completion: ``scale`` (in units of the residual stream), ``scale_index``,
        ``prompt``, ``sample``, ``text``, ``continuation``, and both as token ids.

    Raises:
        SaeflowError: the vector is of another width or says no hook, a scale is not finite, or the
            model has no chat template for messages.

    Examples:
        >>> import saeflow as sf
        >>> lm, sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
        >>> vector = sf.steering_vector(lm, "blocks.1.hook_resid_post", "sae", sae=sae, latents=5)
        >>> texts = sf.steer(lm, vector, "I think", [0, 4], samples=2, new_tokens=5)
        >>> texts["scale"].to_list()
        [0.0, 0.0, 4.0, 4.0]
    """
    if isinstance(vector, Tensor):
        if not hook:
            raise SaeflowError("steer: a bare vector does not say where it is added; give its hook")
        vector = SteeringVector(vector.detach().float(), {"hook": hook})
    wanted = [scales] if isinstance(scales, int | float) else list(scales)
    said = {
        "prompts": [prompts] if isinstance(prompts, str) else list(prompts),
        "samples": max(samples, LEAST_SAMPLES),
        "new_tokens": new_tokens,
        "sampling": dict(sampling or {}),
    }
    table = complete(
        lm,
        hook or vector.hook,
        vector.of_width(lm.d_model),
        [float(scale) * mean_norm * vector.norm for scale in wanted],
        section(Completions, said, "steer"),
        seed,
        vector.goal,
        vector.method,
    )
    return table.filter(pl.col("sample") < samples)


def _require(method: str, what: str, needed: bool, given: bool) -> None:
    if needed and not given:
        raise SaeflowError(f"steering_vector: method '{method}' needs {what}; give it")


def _weights(latents: int | Sequence[int] | Mapping[int, float]) -> dict[int, float]:
    """Targets and their weights, which add up to 1 where none are given."""
    if isinstance(latents, Mapping):
        return {int(latent): float(weight) for latent, weight in latents.items()}
    numbers = [latents] if isinstance(latents, int | np.integer) else list(latents)
    return {int(latent): 1 / len(numbers) for latent in numbers}


def _read(subject: Subject, texts: str | Sequence[str]) -> ExampleActivations | None:
    """What the methods need of texts; None where there are none."""
    return read_examples(subject, listed(texts)) if texts else None


def _no_latents(lm: LanguageModel) -> SAE:
    """Stands for the SAE of methods that need none."""
    width = lm.d_model
    return SAE(
        "standard",
        W_enc=torch.empty(width, 0, device=lm.device),
        W_dec=torch.empty(0, width, device=lm.device),
        b_enc=torch.empty(0, device=lm.device),
        b_dec=torch.zeros(width, device=lm.device),
    )
