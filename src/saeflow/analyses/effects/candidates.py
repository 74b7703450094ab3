"""The vectors whose effects are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeflow.errors import SaeflowError, warn
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.effects.settings import Vectors


def candidate_vectors(
    settings: Vectors, rows: Float[Tensor, "n_rows d_model"], ids: Sequence[int], seed: int
) -> Float[Tensor, "n d_model"]:
    """The vectors of these numbers, unit norm; a vector depends on its number, not on the others.

    A row of zeros, as the decoder of a published SAE has for latents that died, stays zero.

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
    return _of_unit_norm(vectors).float()


def check_rows(
    rows: Float[Tensor, "n_rows d_model"], numbers: range, d_model: int, where: str
) -> None:
    """Refuse rows that cannot be measured, all at once, so that no block is measured before another
    fails. A row of zeros among others is told as a warning: it steers nothing.

    Args:
        rows: of the source.
        numbers: of the rows that are used.
        d_model: of the model.
        where: the source's name.

    Raises:
        SaeflowError: another width than the model's, a number that is not finite, or nothing but
            zeros.
    """
    if rows.shape[1] != d_model:
        raise SaeflowError(
            f"{where}: its vectors are {rows.shape[1]} wide and the model {d_model}; take vectors "
            "of this model"
        )
    used = rows[numbers.start : numbers.stop]
    finite, zero = used.isfinite().all(1), (used == 0).all(1)
    if not finite.all():
        raise SaeflowError(
            f"{where}: vector {_first(~finite, numbers)} holds NaN or infinity; correct it or "
            "leave it out (effects.vectors.range)"
        )
    if len(used) and zero.all():
        raise SaeflowError(
            f"{where}: vector {_first(zero, numbers)} is zero, and there is no other; take others "
            "(effects.vectors.range)"
        )
    if zero.any():
        warn(
            f"{where}: vector {_first(zero, numbers)} is zero and steers nothing; it is kept with "
            "effects of zero"
        )


def _first(marked: Bool[Tensor, " rows"], numbers: range) -> str:
    """The number of the first marked row, and how many there are besides."""
    others = f" (and {int(marked.sum()) - 1} more)" if marked.sum() > 1 else ""
    return f"{numbers.start + int(marked.nonzero()[0, 0])}{others}"


def _of_unit_norm(vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    norms = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norms > 0, norms, 1.0)


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
    return torch.from_numpy(weights) @ _of_unit_norm(rows[torch.from_numpy(pair)].double())


KINDS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "decoder": _row,
    "mixtures": _mixture,
    "random": _random,
    "file": _row,
    "sae_ts": _row,
}
