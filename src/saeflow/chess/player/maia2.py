"""Maia-2: a model of how people play chess, told how strong they are.

A board goes through convolutions to a few channels, each channel becomes a token, and a small
transformer, whose queries are shifted by the embeddings of both players' ratings, mixes them. Three
heads read the mean of the tokens: the move, what else is to be said of the move, and the result.

Parameters have the names of the official checkpoints. Hook sites are modules in the way of the
data, ``blocks.1.mlp``: a forward hook reads there, and what it returns flows on.

Source: Tang, Jiao, McIlroy-Young, Kleinberg, Sen, Anderson 2024, "Maia-2: A Unified Model for
Human-AI Alignment in Chess" (arXiv 2409.20553), section 3.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import relu

from saeflow.chess.games.moves import MOVES, SIDE_INFORMATION
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.player.planes import PLANES
from saeflow.chess.player.settings import ChessModel

# attn: the heads' outputs side by side, before the output projection. attn_out: what attention adds
# to the residual stream, which published code calls the heads. mlp: what the feed-forward adds.
# resid_post: the stream after that.
SITES = ("attn", "attn_out", "mlp", "resid_post")


class Maia2Output(NamedTuple):
    """Raw logits of the three heads.

    Attributes:
        moves: over `MOVES`; mask illegal ones before use.
        side: pieces, check, squares and legal moves, as `side_information` orders them.
        value: near 1 where the player wins, −1 where the opponent does.
    """

    moves: Float[Tensor, "n 1880"]
    side: Float[Tensor, "n 2021"]
    value: Float[Tensor, " n"]


class Block(nn.Module):
    """Two convolutions and what they are added to."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(channels, channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = _convolution(channels, channels), nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n channels 8 8"]) -> Float[Tensor, "n channels 8 8"]:
        inner = self.dropout(relu(self.bn1(self.conv1(x))))
        return relu(self.bn2(self.conv2(inner)) + x)


class Convolutions(nn.Module):
    """From planes to one 8 × 8 map per token."""

    def __init__(self, shape: ChessModel, dropout: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(PLANES, shape.dim_cnn), nn.BatchNorm2d(shape.dim_cnn)
        self.layers = nn.Sequential(
            *(Block(shape.dim_cnn, dropout) for _ in range(shape.blocks_cnn))
        )
        self.conv_last, self.bn_last = (
            _convolution(shape.dim_cnn, shape.tokens),
            nn.BatchNorm2d(shape.tokens),
        )

    def forward(self, planes: Float[Tensor, "n 18 8 8"]) -> Float[Tensor, "n tokens 8 8"]:
        maps = self.layers(relu(self.bn1(self.conv1(planes))))
        return self.bn_last(self.conv_last(maps))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)


class Attention(nn.Module):
    """Attention over the tokens; the ratings of both players are added to every query."""

    def __init__(self, shape: ChessModel, dropout: float) -> None:
        super().__init__()
        inner = shape.heads * shape.dim_head
        self.heads = shape.heads
        self.norm = nn.LayerNorm(shape.dim_vit)
        self.to_qkv = nn.Linear(shape.dim_vit, 3 * inner, bias=False)
        self.elo_query = nn.Linear(2 * shape.dim_elo, inner, bias=False)
        self.dropout = nn.Dropout(dropout)
        projects = not (shape.heads == 1 and inner == shape.dim_vit)
        self.to_out = (
            nn.Sequential(nn.Linear(inner, shape.dim_vit), nn.Dropout(dropout))
            if projects
            else nn.Identity()
        )

    def forward(
        self, x: Float[Tensor, "n tokens d"], ratings: Float[Tensor, "n e"], site: nn.Module
    ) -> Float[Tensor, "n tokens d"]:
        query, key, value = self.to_qkv(self.norm(x)).chunk(3, dim=-1)
        query = query + self.elo_query(ratings)[:, None]
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        mixed = self.dropout(scores.softmax(dim=-1)) @ value
        return self.to_out(site(mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """The feed-forward layers of a block, with their norm."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Float[Tensor, "n tokens d"]) -> Float[Tensor, "n tokens d"]:
        return self.net(x)


class Transformer(nn.Module):
    """Blocks of attention and feed-forward, and a last norm."""

    def __init__(self, shape: ChessModel, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.dim_vit)
        self.elo_layers = nn.ModuleList(
            nn.ModuleList([Attention(shape, dropout), FeedForward(shape.dim_vit, dropout)])
            for _ in range(shape.blocks_vit)
        )

    def forward(
        self, x: Float[Tensor, "n tokens d"], ratings: Float[Tensor, "n e"], sites: nn.ModuleList
    ) -> Float[Tensor, "n tokens d"]:
        for layer, at in zip(self.elo_layers, sites, strict=True):
            attention, feed_forward = cast(nn.ModuleList, layer)
            site = cast(nn.ModuleDict, at)
            x = site["attn_out"](attention(x, ratings, site["attn"])) + x
            x = site["resid_post"](site["mlp"](feed_forward(x)) + x)
        return self.norm(x)


class Maia2(nn.Module):
    """The model, at any size.

    Args:
        shape: its widths and depths.
        dropout_cnn: share dropped between the convolutions of a block, while training.
        dropout: share dropped in the transformer and before the value, while training.
    """

    def __init__(self, shape: ChessModel, dropout_cnn: float = 0.5, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.chess_cnn = Convolutions(shape, dropout_cnn)
        self.to_patch_embedding = nn.Sequential(
            nn.Linear(64, shape.dim_vit), nn.LayerNorm(shape.dim_vit)
        )
        self.transformer = Transformer(shape, dropout)
        self.pos_embedding = nn.Parameter(torch.randn(1, shape.tokens, shape.dim_vit))
        self.fc_1 = nn.Linear(shape.dim_vit, len(MOVES))
        self.fc_2 = nn.Linear(shape.dim_vit, SIDE_INFORMATION + len(MOVES))
        self.fc_3 = nn.Linear(shape.dim_value, 1)
        self.fc_3_1 = nn.Linear(shape.dim_vit, shape.dim_value)
        self.elo_embedding = nn.Embedding(len(RATING_BINS), shape.dim_elo)
        self.dropout = nn.Dropout(dropout)
        self.last_ln = nn.LayerNorm(shape.dim_vit)
        # without parameters: places to read and to edit
        self.blocks = nn.ModuleList(
            nn.ModuleDict({site: nn.Identity() for site in SITES}) for _ in range(shape.blocks_vit)
        )

    def forward(
        self,
        planes: Float[Tensor, "n 18 8 8"],
        rating_self: Int[Tensor, " n"],
        rating_oppo: Int[Tensor, " n"],
    ) -> Maia2Output:
        """The three heads' logits.

        Args:
            planes: from `encode`.
            rating_self: bin of the player to move.
            rating_oppo: bin of the opponent.
        """
        return self.judge(self.embed(planes), rating_self, rating_oppo)

    def embed(self, planes: Float[Tensor, "n 18 8 8"]) -> Float[Tensor, "n tokens d"]:
        """The tokens that the transformer gets: what does not depend on the players."""
        planes = planes.contiguous(
            memory_format=torch.channels_last
        )  # convolutions run a seventh faster so
        return self.to_patch_embedding(self.chess_cnn(planes).flatten(2)) + self.pos_embedding

    def judge(
        self,
        tokens: Float[Tensor, "n tokens d"],
        rating_self: Int[Tensor, " n"],
        rating_oppo: Int[Tensor, " n"],
    ) -> Maia2Output:
        """The three heads' logits for players of these bins, from what `embed` gives."""
        ratings = torch.cat(
            [self.elo_embedding(rating_self), self.elo_embedding(rating_oppo)], dim=1
        )
        x = self.last_ln(self.transformer(self.dropout(tokens), ratings, self.blocks).mean(dim=1))
        value = self.fc_3(self.dropout(relu(self.fc_3_1(x)))).squeeze(-1)
        return Maia2Output(self.fc_1(x), self.fc_2(x), value)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.pos_embedding.device

    @property
    def hooks(self) -> list[str]:
        """The names of all hook sites."""
        return [
            f"blocks.{block}.{site}" for block in range(self.shape.blocks_vit) for site in SITES
        ]


def token_mean(activations: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n 1 width"]:
    """What the heads see of the tokens, and what SAEs read by default: their mean."""
    return activations.mean(dim=1, keepdim=True)
