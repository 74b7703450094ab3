"""The vectors whose effects are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.effects.settings import Vectors


def candidate_vectors(
    settings: Vectors, rows: Float[Tensor, "n_rows d_model"], ids: Sequence[int], seed: int
) -> Float[Tensor, "n d_model"]:
    """The vectors of these numbers, unit norm; a vector depends on its number, not on the others.

    Args:
        settings: which kind of vectors.
        rows: of the source, checked by `check_rows`; `sources.load_rows` reads
            them.
        ids: numbers of the vectors; rows of the source, where the vectors are its rows.
        seed: of the study.

    Raises:
        SaeflowError: a mixture of fewer than two rows.
    """
    vectors = torch.stack([KINDS[settings.kind](rows, index, seed) for index in ids]).double()
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()


def check_rows(
    rows: Float[Tensor, "n_rows d_model"], numbers: range, d_model: int, where: str
) -> None:
    """Refuse rows that cannot steer, all at once, so that no block is measured before another
    fails.

    Args:
        rows: of the source.
        numbers: of the rows that are used.
        d_model: of the model.
        where: the source's name.

    Raises:
        SaeflowError: another width than the model's, a number that is not finite, or a row that is
            zero.
    """
    if rows.shape[1] != d_model:
        raise SaeflowError(
            f"{where}: its vectors are {rows.shape[1]} wide and the model {d_model}; take vectors "
            "of this model"
        )
    used = rows[numbers.start : numbers.stop]
    for wrong, reason in (
        (~used.isfinite().all(1), "holds NaN or infinity"),
        ((used == 0).all(1), "is zero"),
    ):
        if wrong.any():
            row = numbers.start + int(wrong.nonzero()[0, 0])
            others = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
            raise SaeflowError(
                f"{where}: vector {row}{others} {reason}; correct it or leave it out "
                "(effects.vectors.range)"
            )


def _row(
    rows: Float[Tensor, "n_rows d_model"], index: int, _seed: int
) -> Float[Tensor, " d_model"]:
    return rows[index].double()


def _random(
    rows: Float[Tensor, "n_rows d_model"], index: int, seed: int
) -> Float[Tensor, " d_model"]:
    return torch.from_numpy(
        numpy_generator(seed, "effects", "random", index).standard_normal(rows.shape[1])
    )


def _mixture(
    rows: Float[Tensor, "n_rows d_model"], index: int, seed: int
) -> Float[Tensor, " d_model"]:
    """Two different rows at unit norm with weights drawn from (0, 1]."""
    if len(rows) < 2:
        raise SaeflowError(
            "effects.vectors: mixtures need an SAE of two latents or more; set kind: random"
        )
    generator = numpy_generator(seed, "effects", "mixtures", index)
    pair = generator.choice(len(rows), size=2, replace=False)
    weights = 1.0 - generator.random(2)
    units = rows[torch.from_numpy(pair)].double()
    units = units / units.norm(dim=1, keepdim=True)
    return torch.from_numpy(weights) @ units


KINDS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "decoder": _row,
    "mixtures": _mixture,
    "random": _random,
    "file": _row,
    "sae_ts": _row,
}
