"""Where positions of chess come from, the model of human play, and its activations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import InputPath, Name, Section, Text, Unique, refuse


class Games(Section):
    """Which games become positions, and which of their moves. With the defaults, what Maia-2 was
    trained on, but games without clocks are taken, too, and as many of a range of ratings as there
    are."""

    events: Annotated[list[Text], Unique] = Field(default=["Rated"], min_length=1)
    """A game is taken if its header ``Event`` holds one of these words: ``["Rated Rapid"]``."""
    clocks: Literal["optional", "required"] = "optional"
    """``required``: take only games whose every move has a clock."""
    minimum_clock: float = Field(default=30.0, ge=0)
    """Where there is a clock, leave out moves after which the player has no more than this, in
    seconds."""
    first_ply: int = Field(default=10, ge=0)
    """Half moves that are left out at the beginning of a game."""
    last_ply: int = Field(default=300, ge=0)
    """The last half move that is taken, counted from 0."""
    games_per_range: int | None = Field(default=None, ge=1)
    """At most so many games of one pair of rating bins out of ``games_per_chunk``, against the
    crowd in the middle; null takes all. Maia-2 took 20."""
    games_per_chunk: int = Field(default=5000, ge=1)
    """Games that are read in one go; part of the result's identity where ``games_per_range`` is
    set."""


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
    ``bfloat16`` is about 1.6 times faster on processors that have it."""


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
        given = [
            key
            for key in ("embedded", "train", "path", "official")
            if getattr(self, key) is not None
        ]
        if len(given) != 1:
            this = f"{' and '.join(given) or 'none'} (null undoes a key of an earlier file)"
            refuse(
                [("", f"give exactly one of embedded, train, path and official; this gives {this}")]
            )
        return self


class SelfPlay(Section):
    """Games that the model plays against itself, both players told a rating bin that is drawn for
    each."""

    games: int = Field(default=1500, ge=2)
    """How many."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the draw among legal moves."""
    last_ply: int = Field(default=120, ge=0)
    """A game that lasts longer ends here, as a draw; counted from 0."""


class Positions(Section):
    """Where positions come from: played games, or games of the model with itself."""

    path: InputPath | None = None
    """Played games: a PGN file, plain or packed as .zst, .gz or .bz2. ``${NAME}`` is read from the
    environment."""
    games: Games = Games()
    """``path``: which games, and which of their moves."""
    self_play: SelfPlay | None = None
    """Games of the model with itself, so that a study needs no data."""

    @model_validator(mode="after")
    def _one_source(self) -> Positions:
        if (self.path is None) == (self.self_play is None):
            refuse(
                [
                    (
                        "",
                        (
                            "give either path or self_play; this gives "
                            f"{'both' if self.path else 'none'}"
                        ),
                    )
                ]
            )
        return self


class ChessActivations(Section):
    """The cache of activations over positions, each at the ratings of its players."""

    split: Literal["model", "sae"] = "sae"
    """Whose games: ``sae`` is a tenth of all; ``model`` is eight tenths, which are free where no
    model is trained."""
    positions: int = Field(default=60_000, ge=1024)
    """How many positions, the first of the split."""
    tokens: Literal["mean", "all"] = "mean"
    """``mean``: one row per position, the mean over the model's tokens, which is what its heads
    read and what published SAEs read. ``all``: one row per token."""
    format: Literal["parquet", "hdf5"] = "parquet"
    """Of the shards' files."""
    compress: bool = False
    """Compress the shards."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the stored numbers."""
    positions_per_shard: int = Field(default=32_768, ge=1)
    """Positions per shard; part of the cache's identity."""


class Accuracy(Section):
    """How well the model predicts the moves of the split ``eval``."""

    positions: int = Field(default=1000, ge=10)
    """Most positions per rating bin of the player, drawn at random."""
