"""The targets that a config names, and how each is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from saeflow.analyses.dreaming.contexts import ContextWindows
from saeflow.analyses.dreaming.dreams import Group
from saeflow.analyses.dreaming.objectives import (
    LatentObjective,
    LogitObjective,
    Objective,
    ProjectionObjective,
    Target,
)
from saeflow.errors import SaeflowError
from saeflow.models.vocabulary import vocabulary
from saeflow.tensors import read_tensors

if TYPE_CHECKING:
    from saeflow.analyses.dreaming.settings import Dreaming
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

_TENTHS = 10.0


def of_an_sae(
    sae: SAE, name: str, hook: str, asked: Dreaming, windows: ContextWindows, seed: int
) -> list[Group]:
    """The latents of an SAE that are dreamed of, one by one and together.

    Raises:
        SaeflowError: it has no such latent.
    """
    named = asked.targets.latents.get(name)
    latents = windows.drawn(sae.d_sae, asked.targets.count, seed, name) if named is None else named

    def scale(of: tuple[int, ...]) -> float:
        maximum = windows.maximum(of) if asked.search.tenths else 0.0
        return maximum / _TENTHS or 1.0

    targets = [Target(str(each), "latent", (each,), "sum", scale((each,))) for each in latents]
    targets += [
        Target(title, "latents", tuple(each.latents), each.combine, scale(tuple(each.latents)))
        for title, each in asked.targets.together.items()
        if each.sae == name
    ]
    if not targets:
        return []
    objective: Objective
    objective = LatentObjective(sae, hook, targets)
    if asked.objective.read == "decoder":
        if sae.is_transcoder:
            raise SaeflowError(
                f"dreaming.objective.read: '{name}' is a transcoder, whose decoder writes another "
                "activation; read activation"
            )
        device = sae.W_dec.device
        rows = [sae.W_dec[torch.tensor(target.latents, device=device)] for target in targets]
        objective = ProjectionObjective(hook, targets, rows)
    return [Group(objective, targets, asked.objective.position)]


def without_sae(
    lm: LanguageModel, hook: str, asked: Dreaming, files: Mapping[str, Path]
) -> list[Group]:
    """Directions and logits.

    Raises:
        SaeflowError: a file does not hold one vector of the model's width, or a text is no token.
    """
    groups = []
    if files:
        directions = [Target(name, "direction") for name in files]
        vectors = [_vector(lm, name, path) for name, path in files.items()]
        objective: Objective = ProjectionObjective(hook, directions, vectors)
        groups.append(Group(objective, directions, asked.objective.position))
    if asked.targets.logits:
        held = vocabulary(lm.tokenizer, lm.d_vocab)
        ids = dict(zip(held.texts, held.ids.tolist(), strict=True))
        for name, each in asked.targets.logits.items():
            for key in ("token", "against"):
                if (text := getattr(each, key)) is not None and text not in ids:
                    place = f"dreaming.targets.logits.{name}.{key}"
                    raise SaeflowError(f"{place}: {text!r} is no token of this model")
        named = [
            Target(
                name,
                "logits",
                tokens=(ids[each.token], -1 if each.against is None else ids[each.against]),
            )
            for name, each in asked.targets.logits.items()
        ]
        groups.append(Group(LogitObjective(named, lm.device), named, "end"))
    return groups


def _vector(lm: LanguageModel, name: str, path: Path) -> torch.Tensor:
    vectors = [tensor for tensor in read_tensors(path).values() if tensor.numel() > 1]
    whole = len(vectors) == 1 and bool(vectors[0].any() and vectors[0].isfinite().all())
    if not whole or vectors[0].numel() != lm.d_model:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in vectors) or "nothing"
        raise SaeflowError(
            f"{path}: holds {shapes}, and direction '{name}' is one vector of width {lm.d_model}, "
            "of finite numbers that are not all zero"
        )
    return vectors[0].reshape(1, -1).float().to(lm.device)
