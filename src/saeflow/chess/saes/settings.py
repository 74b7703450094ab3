"""The cache of activations over positions, and the SAEs that read it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from saeflow.config.sae_files import NOTHING, Given
from saeflow.config.section import LocalPath, Name, Section, Unique, refuse
from saeflow.config.sections.saes import UNTRAINED_CONTROLS, Control, SAEFormat, SAETraining

SITE = r"^blocks\.(0|[1-9][0-9]*)\.(attn|attn_out|mlp|resid_post)$"


def _is_site(hook: str) -> str:
    if not re.match(SITE, hook):
        raise ValueError(
            "must be attn, attn_out, mlp or resid_post of a block, such as blocks.1.resid_post; "
            f"got {hook!r}"
        )
    return hook


Site = Annotated[
    str,
    AfterValidator(_is_site),
    WithJsonSchema({"type": "string", "pattern": SITE, "format": "hook"}),
]


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


class ChessSAE(Section):
    """An SAE of a study of chess: trained here, or imported from a local folder."""

    hook: Site = "blocks.1.resid_post"
    """Where it reads: ``attn`` (the heads side by side), ``attn_out`` (what attention adds to the
    residual stream, which published code calls the heads), ``mlp`` (what the feed-forward adds) or
    ``resid_post`` (the stream after that) of a block."""
    train: SAETraining | None = None
    """Train it here, on the cached activations."""
    sweep: dict[str, Annotated[list[int | float | str], Field(min_length=1)]] | None = Field(
        default=None, min_length=1
    )
    """Keys of `train` with several values each, as in a study of language."""
    controls: Annotated[list[Control], Unique] = Field(default=[])
    """Controls that are trained beside it, as in a study of language."""
    group: Name | None = None
    """SAEs of one group are trained by one job, which reads the cache once for all."""
    path: LocalPath | None = None
    """A folder with an SAE, as one of the formats has it. ``${NAME}`` is read from the
    environment."""
    format: SAEFormat = "auto"
    """The format of ``path``; ``auto`` tells it from the names of the files."""
    centred: bool = False
    """Of ``path``: it was trained on activations less their mean over the width. Its encoder is
    changed to read them as they are."""

    @model_validator(mode="after")
    def _one_source(self) -> ChessSAE:
        if (self.train is None) == (self.path is None):
            given = "both" if self.train else "none"
            undo = "(null undoes a key of an earlier file)"
            refuse([("", f"give either train or path; this gives {given} {undo}")])
        if self.path and self.group:
            refuse([("group", "is for SAEs that are trained here; this one is imported")])
        if self.controls and not self.train:
            refuse([("controls", UNTRAINED_CONTROLS)])
        return self

    @property
    def given(self) -> Given:
        """Nothing that the files do not say."""
        return NOTHING

    @property
    def kind(self) -> Literal["sae"]:
        """Neither a transcoder nor a crosscoder."""
        return "sae"

    @property
    def target(self) -> None:
        """It writes where it reads."""
        return None
