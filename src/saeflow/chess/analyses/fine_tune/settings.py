"""Further training of the player on blunders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from saeflow.chess.player.settings import ChessTraining


class FineTuning(ChessTraining):
    """Further training of the player on positions in which blunders were made, to play a better
    move there, told the rating of the player who blundered."""

    teach: Literal["best", "strongest"] = "best"
    """The move that is taught, and that counts as right in what is reported: the engine's ``best``,
    or what the player chooses when told the ``strongest`` rating, as the published fine-tuning
    did."""
    parts: Literal["all", "heads"] = "all"
    """What learns: ``all`` of the player, or its ``heads`` alone, so that activations, and what
    SAEs say of them, stay as they are."""

    batch_size: int = Field(default=64, ge=1)
    """Positions per step."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the blunders."""
    learning_rate: float = Field(default=1e-4, gt=0, lt=1)
    """Peak of a warm-up and cosine schedule."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """Of AdamW; of matrices and kernels only."""
    value_weight: float = Field(default=0.0, ge=0)
    """Weight of the loss of the third head (the result); 0, as the game went on after another
    move."""
    dropout_cnn: float = Field(default=0.0, ge=0, lt=1)
    """Share of the channels' values that is dropped inside the convolutions' blocks. A player that
    was trained without dropout forgets by it; the published one was trained with 0.5."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share that is dropped in the transformer and before the value."""
    positions: int | None = Field(default=None, ge=1)
    """Positions in all, where that is fewer than ``epochs`` passes; null is all."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the games with blunders that are not learned from; what is reported is measured on
    them."""
