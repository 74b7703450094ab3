"""What exports are written from: files of a study, and what all formats ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.steering.exports import EXPORTS
from saeflow.analyses.steering.io import SteeringVector, load_vector
from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
from saeflow.config.hooks import one_name
from saeflow.errors import SaeflowError
from saeflow.judging.io import read_scores
from saeflow.models.adapters import family_of
from saeflow.models.hooks import parse_hook
from saeflow.models.io import model_names
from saeflow.models.language_model import checkpoint_of, config_of
from saeflow.tables import read_table

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from saeflow.models.families import Family


class Steered(NamedTuple):
    """A vector, how much of it is added, and the layer of a model that it is added behind."""

    vector: SteeringVector
    scale: float
    layer: int
    """Index of the layer, from 0, to whose output the vector is added."""
    config: PretrainedConfig
    """Of the model; of its decoder where it reads images, too."""
    family: Family
    checkpoint: Path

    @property
    def added(self) -> Float[Tensor, " d_model"]:
        """What is added to the residual stream, float32."""
        return (self.vector.vector.double().cpu() * self.scale).float()


@dataclass(frozen=True)
class Content:
    """The files that an export was given, by the names of their options, read when they are asked
    for."""

    files: Mapping[str, Path]
    scale: float = 1.0
    """Of the vector, in units of the residual stream."""

    @property
    def steered(self) -> Steered:
        """The vector and its place in the model.

        Raises:
            SaeflowError: a file is absent or damaged, the vector is not finite or of another width
                than the model, its hook is no layer's output, or the scale adds nothing.
        """
        vector, model = load_vector(self.files["vector"]), self.files["model"]
        checkpoint = checkpoint_of(model)
        config = config_of(checkpoint)
        layer, site = parse_hook(one_name(vector.hook))
        if site != "hook_resid_post":
            raise SaeflowError(
                f"{self.files['vector']}: is a vector of {vector.hook}, and other programs add "
                "vectors to the outputs of layers; export one of a hook_resid_post"
            )
        if layer >= config.num_hidden_layers:
            raise SaeflowError(
                f"{self.files['vector']}: is a vector of {vector.hook}, and {model} has "
                f"{config.num_hidden_layers} layers; name the model that the vector is of"
            )
        vector.of_width(config.hidden_size)
        steered = Steered(vector, self.scale, layer, config, family_of(config), checkpoint)
        if not (steered.added.isfinite().all() and steered.added.any()):
            raise SaeflowError(
                f"--scale: {self.scale} times the vector is nothing, or no finite number; name the "
                "scale that steers"
            )
        return steered

    @property
    def model_name(self) -> str:
        """The name that the model goes by: its repository's where it came from a hub, else its
        folder's.

        Raises:
            SaeflowError: there is no such folder.
        """
        checkpoint_of(self.files["model"])
        return model_names(self.files["model"])[0]

    @property
    def completions(self) -> pl.DataFrame:
        """The completions; raises as `saeflow.tables.read_table` does."""
        return read_table(self.files["completions"], COMPLETIONS_SCHEMA)

    @property
    def scores(self) -> pl.DataFrame:
        """Their scores; raises as `saeflow.judging.io.read_scores` does."""
        return read_scores(self.files["scores"])


def export(path: Path, format_name: str, files: Mapping[str, Path], scale: float | None) -> None:
    """Write a file of another program.

    Args:
        path: of the file.
        format_name: of `EXPORTS`.
        files: what it is written from, by the names of their options.
        scale: of the vector, 1 by default; None where the format holds none.

    Raises:
        SaeflowError: there is no such format, a file that it needs is not named or one that it does
            not read is, its name ends otherwise than the program wants, or what `Content` and the
            format's own module raise.
    """
    if format_name not in EXPORTS:
        raise SaeflowError(f"--format: there is no '{format_name}'; there are {', '.join(EXPORTS)}")
    module = import_module(f"saeflow.analyses.steering.exports.{format_name}")
    given = {*files, *([] if scale is None else ["scale"])}
    allowed = {*module.READS, *(["scale"] if "vector" in module.READS else [])}
    if missing := [name for name in module.READS if name not in files]:
        raise SaeflowError(
            f"--format {format_name}: is written from {_options(module.READS)}; "
            f"{_options(missing)} is missing"
        )
    if superfluous := sorted(given - allowed):
        raise SaeflowError(
            f"--format {format_name}: holds nothing of {_options(superfluous)}; leave it out"
        )
    if path.suffix not in module.SUFFIXES:
        raise SaeflowError(
            f"--output: {path.name} must end in {' or '.join(module.SUFFIXES)}, by which the file "
            "is known where it is read"
        )
    module.save(path, Content(files, 1.0 if scale is None else scale))


def _options(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"--{name}" for name in names)
