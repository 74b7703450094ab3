"""Where positions of chess come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import InputPath, InputPaths, Section, Text, Unique, refuse


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

    path: InputPaths | None = None
    """Played games: a PGN file, plain or packed as .zst, .gz, .bz2 or .xz, or a list of files.
    ``${NAME}`` is read from the environment."""
    test: Annotated[list[InputPath], Unique] = Field(default=[])
    """``path``: other files, such as later months, whose games, and no others, are the split
    ``eval``; games that stand in both are left out of training."""
    games: Games = Games()
    """``path``: which games, and which of their moves."""
    self_play: SelfPlay | None = None
    """Games of the model with itself, so that a study needs no data."""

    @model_validator(mode="after")
    def _one_source(self) -> Positions:
        if (self.path is None) == (self.self_play is None):
            given = "both" if self.path else "none"
            refuse([("", f"give either path or self_play; this gives {given}")])
        if self.test and not self.path:
            refuse([("test", "is of played games, and this has none; give path")])
        if both := set(self.test) & set(self.paths):
            refuse([("test", f"'{min(both)}' is among those of path, too; leave it out of one")])
        return self

    @property
    def paths(self) -> list[str]:
        """The files of `path`."""
        return [self.path] if isinstance(self.path, str) else list(self.path or [])
