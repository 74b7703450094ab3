"""What sums of few latents do to a model when they stand in for a direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.decomposition.curves import random_directions
from saeflow.analyses.directions.candidates import unit
from saeflow.analyses.directions.interventions import Intervention, Measured, Trial
from saeflow.analyses.directions.summary import summarise
from saeflow.pursuits.methods import PURSUITS

if TYPE_CHECKING:
    from saeflow.analyses.decomposition.settings import SumEdits
    from saeflow.analyses.directions.placing import Placed
    from saeflow.analyses.directions.settings import EditMeasures
    from saeflow.pursuits.dictionary import Dictionary

EDITS = {
    "edit": pl.String,
    "kind": pl.String,
    "latents": pl.Int32,
    "label": pl.String,
    "measure": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int32,
}
"""``edit``: none, ablate, add (of one gap). ``kind``: the ``whole`` direction; a ``sum`` of so many
latents that comes closest to it; such sums for ``random`` directions. The rest as in
`directions.summary.EDITS`."""
Kind = Literal["whole", "sum", "random"]


class Tried(NamedTuple):
    """Edits, and what each of their kinds is."""

    trials: list[Trial]
    kinds: dict[str, tuple[Kind, int | None]]


def trials(own: Placed, dictionary: Dictionary, settings: SumEdits, seed: int) -> Tried:
    """No edit, the direction taken out and added by one gap, and the same of every sum, brought to
    the direction's length. A sum of nothing is left out.

    Args:
        own: the direction, at the layer of the SAE.
        dictionary: the decoder.
        settings: which sums.
        seed: of the study.
    """
    targets = torch.cat(
        [own.vector.unsqueeze(0), random_directions(dictionary, settings.controls, seed)]
    )
    sums = PURSUITS[settings.pursuit](targets, dictionary, max(settings.latents))
    kinds: dict[str, tuple[Kind, int | None]] = {"whole": ("whole", None)}
    result = [Trial(Intervention("none", own.vector.float(), own.layer, 0.0), "whole", 0, 0.0)]
    result += _both(own, own.vector, "whole", 0)
    for k in settings.latents:
        for number, vector in enumerate(unit(sums.sums(dictionary.atoms, k))):
            if vector.any():
                kind: Kind = "random" if number else "sum"
                kinds[f"{kind} of {k}"] = kind, k
                result += _both(own, vector, f"{kind} of {k}", max(number - 1, 0))
    return Tried(result, kinds)


def _both(
    own: Placed, vector: Float[Tensor, " d_model"], kind: str, control: int
) -> tuple[Trial, Trial]:
    away = Intervention("ablate", vector.float().cpu(), own.layer, 0.0)
    return (
        Trial(away, kind, control, 0.0),
        Trial(away._replace(edit="add", size=own.gap), kind, control, 1.0),
    )


def edit_table(
    measured: Measured,
    kinds: Mapping[str, tuple[Kind, int | None]],
    settings: EditMeasures,
    seed: int,
) -> pl.DataFrame:
    """The columns of `EDITS`.

    Args:
        measured: what the trials did.
        kinds: from `trials`.
        settings: level and draws of the intervals.
        seed: of the study.
    """
    summary = summarise(measured, settings, seed)
    said = [(name, kind, latents) for name, (kind, latents) in kinds.items()]
    schema = {"tried": pl.String, "kind": pl.String, "latents": pl.Int32}
    names = pl.DataFrame(said, schema=schema, orient="row")
    joined = summary.rename({"kind": "tried"}).join(names, on="tried", maintain_order="left")
    return joined.select(list(EDITS))
