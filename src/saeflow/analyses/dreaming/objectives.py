"""What dreamed prompts make large: numbers of every position, from a hook or from the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.saes.sae import SAE

Combine = Literal["sum", "minimum"]


@dataclass(frozen=True)
class Target:
    """One thing that is dreamed of.

    Attributes:
        name: unique among those of an SAE.
        kind: ``latent``, ``latents``, ``direction`` or ``logits``.
        latents: of a latent or of several.
        combine: what is made of several.
        scale: in units of which values are weighed against cross-entropy.
        tokens: of logits, the token and that it is held against, -1 for the largest of all others.
    """

    name: str
    kind: str
    latents: tuple[int, ...] = ()
    combine: Combine = "sum"
    scale: float = 1.0
    tokens: tuple[int, ...] = ()


class Objective(Protocol):
    """Values of all positions of prompts, each row for a target of its own."""

    hook: str | None
    """Where it reads the model; None for one that reads logits."""

    def along(
        self, read: Float[Tensor, "rows pos width"], of: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows pos"]:
        """The value at every position, with a gradient where what is read has one.

        Args:
            read: of the hook, or logits.
            of: the target of each row.
        """


class LatentObjective:
    """What an SAE's encoder makes of activations: the value of a latent where it fires, and how far
    it is from firing where it does not.

    Args:
        sae: the SAE.
        hook: where it reads.
        targets: their latents.
    """

    def __init__(self, sae: SAE, hook: str, targets: Sequence[Target]) -> None:
        self.hook: str | None = hook
        self._sae = sae
        device = sae.W_enc.device
        union = sorted({latent for target in targets for latent in target.latents})
        if union[-1] >= sae.d_sae:
            raise SaeflowError(
                f"dreaming.targets: there is no latent {union[-1]}; the SAE has {sae.d_sae}"
            )
        self._union = torch.tensor(union, device=device)
        self._members = _Members([[union.index(i) for i in t.latents] for t in targets], device)
        self._minimum = _is_minimum(targets, device)

    def along(
        self, read: Float[Tensor, "rows pos d_model"], of: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows pos"]:
        reached = self._sae.reach(read, self._union)
        index, mask = self._members.of(of)
        places = index[:, None, :].expand(-1, reached.shape[1], -1)
        return combined(reached.gather(2, places), mask[:, None, :], self._minimum[of])


class ProjectionObjective:
    """The product of activations with unit vectors, such as decoder rows.

    Args:
        hook: where activations are read.
        targets: what they are for.
        vectors: of each target one or several, ``[n, d_model]``.
    """

    def __init__(
        self, hook: str, targets: Sequence[Target], vectors: Sequence[Float[Tensor, "n d_model"]]
    ) -> None:
        self.hook: str | None = hook
        rows = torch.cat(list(vectors)).float()
        self._vectors = rows / rows.norm(dim=1, keepdim=True)
        ends = [0, *accumulate(map(len, vectors))]
        ranges = [list(range(*each)) for each in pairwise(ends)]
        self._members = _Members(ranges, rows.device)
        self._minimum = _is_minimum(targets, rows.device)

    def along(
        self, read: Float[Tensor, "rows pos d_model"], of: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows pos"]:
        index, mask = self._members.of(of)
        products = torch.einsum("rpd,rmd->rpm", read.float(), self._vectors[index])
        return combined(products, mask[:, None, :], self._minimum[of])


class LogitObjective:
    """The logit of a token less that of another, or less the largest of all others.

    Args:
        targets: with their tokens.
        device: of the model.
    """

    def __init__(self, targets: Sequence[Target], device: torch.device) -> None:
        self.hook: str | None = None
        pairs = torch.tensor([target.tokens for target in targets], device=device)
        self._tokens, self._against = pairs.unbind(1)

    def along(
        self, read: Float[Tensor, "rows pos d_vocab"], of: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows pos"]:
        places = self._tokens[of][:, None, None].expand(-1, read.shape[1], 1)
        own = read.gather(2, places)
        largest = read.scatter(2, places, -torch.inf).amax(2)
        named = self._against[of].clamp_min(0)[:, None, None].expand(-1, read.shape[1], 1)
        other = torch.where(self._against[of][:, None] < 0, largest, read.gather(2, named)[..., 0])
        return own[..., 0] - other


def combined(
    values: Float[Tensor, "rows pos n"],
    mask: Bool[Tensor, "rows 1 n"],
    minimum: Bool[Tensor, " rows"],
) -> Float[Tensor, "rows pos"]:
    """The sum or the minimum of those that count."""
    total = torch.where(mask, values, 0.0).sum(-1)
    least = torch.where(mask, values, torch.inf).amin(-1)
    return torch.where(minimum[:, None], least, total)


class _Members:
    """Lists of unequal length as one tensor."""

    def __init__(self, lists: Sequence[Sequence[int]], device: torch.device) -> None:
        most = max(map(len, lists))
        self._index = torch.tensor(
            [[*each, *[0] * (most - len(each))] for each in lists], device=device
        )
        self._mask = torch.tensor(
            [[i < len(each) for i in range(most)] for each in lists], device=device
        )

    def of(
        self, rows: Int[Tensor, " rows"]
    ) -> tuple[Int[Tensor, "rows n"], Bool[Tensor, "rows n"]]:
        return self._index[rows], self._mask[rows]


def _is_minimum(targets: Sequence[Target], device: torch.device) -> Bool[Tensor, " targets"]:
    return torch.tensor([target.combine == "minimum" for target in targets], device=device)
