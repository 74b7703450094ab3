"""The model of human play."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from saeflow.config.section import InputPath, Name, Section, refuse


class ChessModel(Section):
    """The shape of a model with Maia-2's architecture; the defaults are the published model's."""

    dim_cnn: int = Field(default=256, ge=1, le=4096)
    """Channels of the convolutions."""
    blocks_cnn: int = Field(default=5, ge=0, le=100)
    """Residual blocks of two convolutions each."""
    tokens: int = Field(default=8, ge=1, le=64)
    """Channels that the convolutions end in; each becomes a token of the transformer."""
    dim_vit: int = Field(default=1024, ge=1, le=16_384)
    """Width of the transformer's residual stream."""
    blocks_vit: int = Field(default=2, ge=1, le=100)
    """Blocks of the transformer."""
    heads: int = Field(default=16, ge=1, le=256)
    """Attention heads per block."""
    dim_head: int = Field(default=64, ge=1, le=1024)
    """Width of a head."""
    dim_elo: int = Field(default=128, ge=1, le=4096)
    """Width of the embedding of a rating bin."""
    dim_value: int = Field(default=128, ge=1, le=4096)
    """Hidden width of the head that predicts the result."""


class ChessTraining(Section):
    """Training on the positions of the split ``model``: three heads, one sum of losses, AdamW."""

    batch_size: int = Field(default=1024, ge=1)
    """Positions per step."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the split."""
    positions: int | None = Field(default=None, ge=1)
    """Positions in all, where that is fewer than ``epochs`` passes; null is all."""
    learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    """Peak of a warm-up and cosine schedule."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW; of matrices and kernels only."""
    side_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of the second head (pieces, squares, check, legal moves)."""
    value_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of the third head (the result)."""
    dropout_cnn: float = Field(default=0.5, ge=0, lt=1)
    """Share of the channels' values that is dropped inside the convolutions' blocks; the published
    model's is 0.5, which a small model does not need."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share that is dropped in the transformer and before the value."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of products and convolutions while training; weights, norms and losses stay float32.
    ``bfloat16`` is about 1.6 times faster on processors that have it; others take float32."""


class ChessPlayer(Section):
    """The model of human play: the small one that comes with saeflow, or trained here, or a
    checkpoint of Maia-2."""

    name: Name = "maia2-mini"
    """Its name in file paths."""
    embedded: Literal["maia2-mini"] | None = None
    """The small model that comes with saeflow."""
    train: ChessTraining | None = None
    """Train it here, on the split ``model`` of the games."""
    path: InputPath | None = None
    """A checkpoint of the official package (.pt). ``${NAME}`` is read from the environment."""
    official: Literal["rapid", "blitz"] | None = None
    """Fetch an official checkpoint of Maia-2, whose checksum must be the recorded one."""
    shape: ChessModel = ChessModel()
    """Of a model that is trained here or read from ``path``."""

    @model_validator(mode="after")
    def _one_source(self) -> ChessPlayer:
        sources = ("embedded", "train", "path", "official")
        given = [key for key in sources if getattr(self, key) is not None]
        if len(given) != 1:
            this = f"{' and '.join(given) or 'none'} (null undoes a key of an earlier file)"
            reason = f"give exactly one of embedded, train, path and official; this gives {this}"
            refuse([("", reason)])
        return self


class Accuracy(Section):
    """How well the model predicts the moves of the split ``eval``."""

    positions: int = Field(default=1000, ge=10)
    """Most positions per rating bin of the player, drawn at random."""
