"""Directions that are decomposed, and the activations that they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from saeflow.analyses.directions.placing import ContrastRows
from saeflow.artifacts import sealed
from saeflow.corpora.labelled import LabelledSet, read_labelled, split_by_group
from saeflow.errors import SaeflowError
from saeflow.models.reading import read_at
from saeflow.seals import stamp
from saeflow.tensors import read_tensors

if TYPE_CHECKING:
    from saeflow.analyses.decomposition.settings import Contrast, DecomposedDirections
    from saeflow.models.language_model import LanguageModel

TEXTS = {
    "direction": pl.String,
    "row": pl.Int32,
    "positive": pl.Boolean,
    "held_out": pl.Boolean,
    "tokens": pl.Int32,
}
"""One row per text, without the text itself."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of the residual stream, of any norm, and, of a contrast, its texts."""

    name: str
    vector: Float[Tensor, " d_model"]
    texts: ContrastRows | None = None
    """All of them, held out or not."""
    concept: Sequence[str] = ()
    """Words that tell that a text is about what the direction is of."""

    @property
    def rows(self) -> ContrastRows | None:
        """The texts that it is made of."""
        return self.texts and self.texts.part(held_out=False)


def read_contrasts(
    lm: LanguageModel, hook: str, asked: DecomposedDirections, files: Mapping[str, Path], seed: int
) -> tuple[dict[str, ContrastRows], pl.DataFrame]:
    """Run the texts of every contrast up to the hook, one by one, so that none sees padding.

    Args:
        lm: the model.
        hook: where they are read.
        asked: the contrasts.
        files: where the file of a contrast lies, by its name.
        seed: of the study, for which texts are held out.

    Raises:
        SaeflowError: a file cannot be read, a contrast has fewer than two texts of a class on a
            side, or a text is longer than the model's context.
    """
    rows, tables = {}, [pl.DataFrame(schema=TEXTS)]
    for name, contrast in asked.contrasts.items():
        texts = read_labelled(contrast.texts, name, files.get(name))
        if contrast.positive not in texts.classes:
            raise SaeflowError(
                f"decomposition.directions.contrasts.{name}.positive: '{contrast.positive}' is no "
                f"class of the texts, which are {', '.join(texts.classes)}"
            )
        split = split_by_group(texts, asked.held_out, seed, "decomposition")
        activations, lengths = _read(lm, hook, texts, contrast)
        positive = torch.from_numpy(texts.targets == texts.classes.index(contrast.positive))
        held_out = torch.from_numpy(np.isin(np.arange(len(texts)), split.test))
        rows[name] = ContrastRows(activations, positive, held_out)
        _require_two_of_each(name, rows[name])
        table = {
            "direction": [name] * len(texts),
            "row": range(len(texts)),
            "positive": positive.numpy(),
            "held_out": held_out.numpy(),
            "tokens": lengths,
        }
        tables.append(pl.DataFrame(table, schema=TEXTS))
    return rows, pl.concat(tables)


def _read(
    lm: LanguageModel, hook: str, texts: LabelledSet, contrast: Contrast
) -> tuple[Float[Tensor, "texts d_model"], list[int]]:
    """One activation per text, float32, and how many tokens each text has."""
    read = list(read_at(lm, texts.prompts, contrast.position, [hook], texts.name))
    return torch.stack([each.activations[hook] for each in read]), [
        len(each.tokens) for each in read
    ]


def _require_two_of_each(name: str, rows: ContrastRows) -> None:
    for held_out in (False, True):
        part = rows.part(held_out)
        counts = [int(part.positive.sum()), int((~part.positive).sum())]
        if min(counts) < 2:
            side = "are held out" if held_out else "make the direction"
            raise SaeflowError(
                f"{name}: {counts[0]} positive and {counts[1]} other texts {side}, and two of each "
                "are the least; add texts, or change decomposition.directions.held_out"
            )


def save_rows(path: Path, rows: Mapping[str, ContrastRows]) -> None:
    """Write the activations of all contrasts into one file."""
    tensors = {
        f"{name}.{field}": tensor.contiguous()
        for name, own in rows.items()
        for field, tensor in own._asdict().items()
    }
    with sealed(path) as temporary:
        save_file(tensors, temporary, metadata=stamp())


def load_rows(path: Path, names: Sequence[str]) -> dict[str, ContrastRows]:
    """Read the activations of contrasts.

    Raises:
        SaeflowError: the file is damaged or lacks one.
    """
    tensors: dict[str, Any] = read_tensors(path)
    try:
        return {
            name: ContrastRows(*(tensors[f"{name}.{field}"] for field in ContrastRows._fields))
            for name in names
        }
    except KeyError as missing:
        raise SaeflowError(f"{path}: lacks {missing}; make it again") from None
