"""An engine's word on positions, and what the model of human play is taught by it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.chess.player.settings import ChessTraining
from saeflow.config.section import Section, Text, refuse


class Engine(Section):
    """An engine that says which moves are best, and which are blunders. Each position is asked
    about with one thread and an empty memory, so that the answers are the same in any order and on
    any machine."""

    command: Text = "stockfish"
    """A program that speaks UCI: its name, or its path."""
    depth: int | None = Field(default=12, ge=1, le=60)
    """Where its search ends, in half moves; null is no limit."""
    nodes: int | None = Field(default=None, ge=1)
    """Where its search ends, too: positions looked at, so that every question costs the same; null
    is no limit."""
    hash: int = Field(default=16, ge=1, le=65_536)
    """Memory of its search, in MB."""
    split: Literal["model", "sae", "eval"] = "eval"
    """Whose games are evaluated."""
    positions: int = Field(default=1000, ge=1)
    """Most positions that are evaluated, drawn at random."""
    positions_per_job: int = Field(default=250, ge=1)
    """How many of them one job evaluates."""
    blunder: float = Field(default=1.5, gt=0)
    """Pawns that a move must lose to be a blunder."""

    @model_validator(mode="after")
    def _search_ends(self) -> Engine:
        if self.depth is None and self.nodes is None:
            refuse([("", "give depth or nodes, or both; a search must end")])
        return self

    @property
    def jobs(self) -> int:
        """How many jobs evaluate the positions."""
        return math.ceil(self.positions / self.positions_per_job)


class FineTuning(ChessTraining):
    """Further training of the player on positions in which blunders were made, to play the engine's
    best move there, told the rating of the player who blundered."""

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
