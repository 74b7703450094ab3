"""What the analyses need of a model of moves that is told a rating, and of the SAE that reads it at
one site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.chess.games.boards import Boards
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.planes import encode
from saeflow.errors import SaeflowError
from saeflow.saes.sae import SAE

Activations = Float[Tensor, "n tokens d_model"]
Edit = Callable[[Activations], Activations]
BOARDS_AT_ONCE = 256  # fixed, since sums of a matrix product may depend on how many rows it has


class SkillModel(Protocol):
    """A model of moves whose choice depends on the ratings it is told, with one site that is read
    and edited."""

    @property
    def n_bins(self) -> int:
        """How many rating bins there are; the last is the strongest."""

    def embed(self, boards: Boards) -> Tensor:
        """What the model makes of boards before it hears of ratings, boards first."""

    def judge(
        self, embedded: Tensor, ratings: Int[Tensor, " n"], edit: Edit
    ) -> Float[Tensor, "n moves"]:
        """Raw logits of all moves, legal or not.

        Args:
            embedded: from `embed`.
            ratings: the bin that both players are said to be of.
            edit: is given the activations at the site and returns those that flow on.
        """


@dataclass(frozen=True)
class MaiaAtSite:
    """Maia-2, read and edited at one of its sites; both players are said to be of the same bin.

    Attributes:
        model: in evaluation mode.
        hook: ``blocks.1.resid_post``.
    """

    model: Maia2
    hook: str

    def __post_init__(self) -> None:
        if self.hook not in self.model.hooks:
            raise SaeflowError(
                f"chess: the model has no hook '{self.hook}'; it has {', '.join(self.model.hooks)}"
            )

    @property
    def n_bins(self) -> int:
        return len(RATING_BINS)

    @torch.no_grad()
    def embed(self, boards: Boards) -> Tensor:
        return self.model.embed(encode(boards).to(self.model.device))

    @torch.no_grad()
    def judge(
        self, embedded: Tensor, ratings: Int[Tensor, " n"], edit: Edit
    ) -> Float[Tensor, "n moves"]:
        site = self.model.get_submodule(self.hook)
        handle = site.register_forward_hook(lambda _module, _inputs, output: edit(output))
        try:
            rating_bins = ratings.to(embedded.device)
            return self.model.judge(embedded, rating_bins, rating_bins).moves
        finally:
            handle.remove()


@dataclass(frozen=True)
class SiteSAE:
    """An SAE that reads a site with several tokens: their mean, or each of them.

    Attributes:
        sae: reads activations of the site's width.
        tokens: what it was trained on.
    """

    sae: SAE
    tokens: Literal["mean", "all"] = "mean"

    def seen(self, activations: Activations) -> Float[Tensor, "n read d_model"]:
        """What the SAE reads: one row per position, or one per token."""
        return activations.mean(dim=1, keepdim=True) if self.tokens == "mean" else activations

    def encode(self, activations: Activations) -> Float[Tensor, "n read d_sae"]:
        """Latents of what is read."""
        return self.sae.encode(self.seen(activations))

    def latents(self, activations: Activations) -> Float[Tensor, "n d_sae"]:
        """A position's latents: the mean over what is read."""
        return self.encode(activations).mean(dim=1)


def site_sae(sae: SAE, tokens: str) -> SiteSAE:
    """An SAE as it reads a site.

    Raises:
        SaeflowError: ``tokens`` is neither ``mean`` nor ``all``, or the SAE normalises each
            activation by itself, so that no edit of latents is a sum of decoder rows.
    """
    if sae.per_token:
        raise SaeflowError(
            f"chess: the SAE normalises each activation ('{sae.per_token}'), which edits "
            "of latents cannot heed; take another"
        )
    if tokens == "mean":
        return SiteSAE(sae, "mean")
    if tokens == "all":
        return SiteSAE(sae, "all")
    raise SaeflowError(
        f"chess: an SAE reads the mean of the tokens or all of them, not '{tokens}'; set mean or "
        "all"
    )
