"""Fits the linear map from a unit steering vector to its effects (arXiv 2411.02193, section 3), and
measures it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.fit_metrics import Score, TestRows, score
from saeflow.analyses.effects.ridge import Moments, moments, solve, validation_errors
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator, torch_generator
from saeflow.threads import alone

if TYPE_CHECKING:
    from saeflow.analyses.effects.settings import Approximator

CHUNK = 1024  # rows of effects in memory at once
SAMPLED_LATENTS = 1024  # the shuffled control and the other splits are fitted on this many latents
SPLITS = 5  # other splits whose R² tells how much it depends on the rows held out
ADAM_LEARNING_RATE, ADAM_BATCH = 2e-4, 64  # published
PUBLISHED_TEST_ROWS = 100  # the last rows, which the SAE-TS release held back from its fits


class EffectRows(Protocol):
    """Effects ``[n, d_sae]``: a tensor, an array, or a dataset of an open file."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: slice, /) -> Any: ...


class Fit(NamedTuple):
    """An approximation, and how well it does on rows it has not seen."""

    approximation: Approximation
    metrics: dict[str, Any]
    latents: pl.DataFrame
    """How well each latent's effects are predicted; see `fit_metrics.score`."""
    predictions: pl.DataFrame
    """Held-out rows: ``row, latent, predicted, measured, kind``."""


class Split(NamedTuple):
    """Which rows are for what, as masks over all rows."""

    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    test: NDArray[np.bool_]


@alone()
def fit(
    vectors: Float[Tensor, "n d_model"],
    effects: EffectRows,
    settings: Approximator,
    W_dec: Float[Tensor, "d_sae d_model"],
    seed: int,
    usable: NDArray[np.bool_] | None = None,
    standard_error: EffectRows | None = None,
) -> Fit:
    """Fit the map, and measure it on held-out rows.

    Effects are read in chunks, so they need not fit in memory (`adam` alone holds them all). One
    thread does it all, so the result is the same to the last bit whatever the number of cores.

    Args:
        vectors: unit norm.
        effects: measured, row by row.
        settings: method and share of the rows that validates; as many again are held out.
        W_dec: decoder of the SAE whose latents the effects are.
        seed: of the study.
        usable: rows to use; None is all. Vectors whose scale is 0 have no effects to learn from.
        standard_error: of the effects, for the ceiling that their noise sets; None if it is not
            known.

    Raises:
        SaeflowError: the shapes do not agree, or there are too few rows.
    """
    vectors = vectors.to(W_dec.device, torch.float32)
    rows = np.arange(len(vectors)) if usable is None else np.flatnonzero(usable)
    _check(vectors, effects, W_dec, len(rows))
    split = split_rows(rows, len(vectors), settings.validation, seed)
    method = {"ridge": _ridge, "adam": _adam}[settings.method]
    M, b, chosen = method(vectors, effects, settings, split, seed)
    approximation = Approximation.of(M, b, W_dec)
    test = TestRows(np.flatnonzero(split.test), lambda: _chunks(vectors, effects, split.test))
    noise = _noise(standard_error, split.test)
    metrics, latents, predictions = score(
        approximation, test, numpy_generator(seed, "approximator", "sample"), noise
    )
    counts = {part: int(mask.sum()) for part, mask in split._asdict().items()}
    metrics |= {"method": settings.method, "rows": counts, **chosen}
    sample = _sampled(vectors, effects, split, seed)
    metrics["r2_shuffled"] = _shuffled_control(sample, settings, seed)
    metrics |= _other_splits(sample, chosen.get("penalty"), seed)
    return Fit(approximation, metrics, latents, predictions)


@alone()
def assess(
    approximation: Approximation,
    vectors: Float[Tensor, "n d_model"],
    effects: EffectRows,
    seed: int,
    usable: NDArray[np.bool_],
    standard_error: EffectRows | None = None,
) -> Score:
    """Measure a published map on the last `PUBLISHED_TEST_ROWS` usable rows.

    Args:
        approximation: the map.
        vectors: unit norm.
        effects: measured, row by row.
        seed: of the study; draws the points of the table of predictions.
        usable: rows that were added at all.
        standard_error: of the effects; None if it is not known.

    Raises:
        SaeflowError: the effects are of other latents or another width.
    """
    if approximation.M.shape != (vectors.shape[1], effects.shape[1]):
        raise SaeflowError(
            f"approximator: M {list(approximation.M.shape)} does not map vectors of width "
            f"{vectors.shape[1]} to {effects.shape[1]} latents; take the effects that it was "
            "fitted to"
        )
    rows = np.flatnonzero(usable)[-PUBLISHED_TEST_ROWS:]
    mask = np.zeros(len(vectors), dtype=np.bool_)
    mask[rows] = True
    test = TestRows(rows, lambda: _chunks(vectors, effects, mask))
    noise = _noise(standard_error, mask)
    scored = score(approximation, test, numpy_generator(seed, "approximator", "sample"), noise)
    return scored._replace(
        metrics={**scored.metrics, "method": "published", "rows": {"test": len(rows)}}
    )


def split_rows(rows: NDArray[np.int64], n: int, validation: float, seed: int) -> Split:
    """Draw validation and test rows at random, ``validation`` of the rows each; the others
    train."""
    order = numpy_generator(seed, "approximator", "split").permutation(rows)
    held = max(1, round(validation * len(rows)))
    masks = []
    for part in (order[2 * held :], order[:held], order[held : 2 * held]):
        mask = np.zeros(n, dtype=np.bool_)
        mask[part] = True
        masks.append(mask)
    return Split(*masks)


def _check(vectors: Tensor, effects: EffectRows, W_dec: Tensor, usable: int) -> None:
    if len(effects.shape) != 2 or effects.shape[0] != len(vectors):
        raise SaeflowError(
            f"approximator: {len(vectors)} vectors and effects of shape {tuple(effects.shape)} do "
            "not belong together; merge the effects anew"
        )
    if W_dec.shape != (effects.shape[1], vectors.shape[1]):
        raise SaeflowError(
            f"approximator: the SAE has {W_dec.shape[0]} latents of width {W_dec.shape[1]}, the "
            f"effects have {effects.shape[1]} latents and the vectors width {vectors.shape[1]}; "
            "take the SAE they were measured with"
        )
    if usable < 10:
        raise SaeflowError(
            f"approximator: {usable} vectors with effects are too few to fit; measure more"
        )


def _chunks(
    vectors: Tensor, effects: EffectRows, mask: NDArray[np.bool_]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Vectors and effects of the rows of a mask, in order, some at a time."""
    for start in range(0, len(vectors), CHUNK):
        chosen = torch.from_numpy(np.flatnonzero(mask[start : start + CHUNK])).to(vectors.device)
        if len(chosen):
            y = torch.as_tensor(effects[start : start + CHUNK]).to(vectors.device, torch.float32)
            yield vectors[start : start + CHUNK][chosen], y[chosen]


def _ridge(
    vectors: Tensor, effects: EffectRows, settings: Approximator, split: Split, _seed: int
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Choose the penalty on the validation rows, then fit on those and the training rows."""
    shape = (vectors.shape[1], effects.shape[1], vectors.device)
    train, validation = (moments(_chunks(vectors, effects, rows), *shape) for rows in split[:2])
    return _chosen_ridge(train, validation, settings.penalties)


def _chosen_ridge(
    train: Moments, validation: Moments, penalties: list[float]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    errors = validation_errors(train, validation, penalties)
    penalty = penalties[int(np.argmin(errors))]
    M, b = solve(train.plus(validation), penalty)
    by_penalty = dict(zip(map(str, penalties), errors, strict=True))
    return M, b, {"penalty": penalty, "validation_mse": by_penalty}


def _adam(
    vectors: Tensor, effects: EffectRows, settings: Approximator, split: Split, seed: int
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The published recipe: Adam on the mean squared error, cosine schedule per epoch, no early
    stop.

    It chooses nothing, so the validation rows train, too.
    """
    rows = split.train | split.validation
    x, y = (torch.cat(parts) for parts in zip(*_chunks(vectors, effects, rows), strict=True))
    generator = torch_generator(seed, "approximator", "adam")
    M = torch.empty((x.shape[1], y.shape[1]))
    torch.nn.init.kaiming_uniform_(M, generator=generator)
    M = M.to(x.device).requires_grad_()
    b = torch.zeros(y.shape[1], device=x.device, requires_grad=True)
    optimizer = torch.optim.Adam([M, b], lr=ADAM_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.epochs)
    for _ in range(settings.epochs):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for batch in torch.split(order, ADAM_BATCH):
            loss = torch.nn.functional.mse_loss(x[batch] @ M + b, y[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
    return M.detach(), b.detach(), {"epochs": settings.epochs}


class Sample(NamedTuple):
    """The rows of a fit with a random sample of latents, which is enough to tell of all, in
    memory."""

    vectors: Float[Tensor, "rows d_model"]
    effects: Float[Tensor, "rows latents"]
    split: Split
    """Of these rows."""

    def moments(
        self, rows: NDArray[np.bool_] | NDArray[np.int64], order: Tensor | None = None
    ) -> Moments:
        """Of some rows, with their effects dealt out anew where an order is given."""
        x, y = self.vectors[torch.from_numpy(rows)], self.effects[torch.from_numpy(rows)]
        return moments([(x, y if order is None else y[order])], x.shape[1], y.shape[1], x.device)

    def r2(self, rows: NDArray[np.bool_] | NDArray[np.int64], M: Tensor, b: Tensor) -> float | None:
        """Of a map on some rows; None where their effects do not vary."""
        x, y = self.vectors[torch.from_numpy(rows)], self.effects[torch.from_numpy(rows)]
        spread = (y - y.mean(0)).square().sum(dtype=torch.float64).item()
        error = (y - x @ M - b).square().sum(dtype=torch.float64).item()
        return 1 - error / spread if spread else None


def _sampled(vectors: Tensor, effects: EffectRows, split: Split, seed: int) -> Sample:
    d_sae = effects.shape[1]
    generator = numpy_generator(seed, "approximator", "latents")
    latents = np.sort(generator.choice(d_sae, size=min(SAMPLED_LATENTS, d_sae), replace=False))
    columns = torch.from_numpy(latents).to(vectors.device)
    used = split.train | split.validation | split.test
    parts = [(x, y[:, columns]) for x, y in _chunks(vectors, effects, used)]
    x, y = (torch.cat(each) for each in zip(*parts, strict=True))
    return Sample(x, y, Split(*(mask[used] for mask in split)))


def _shuffled_control(sample: Sample, settings: Approximator, seed: int) -> float | None:
    """R² on the test rows of a ridge fit to effects that were dealt out to the wrong vectors; near
    0.

    It chooses its penalty like any other fit.
    """
    generator = numpy_generator(seed, "approximator", "shuffled")

    def wrong(mask: NDArray[np.bool_]) -> Moments:
        return sample.moments(
            mask, torch.from_numpy(generator.permutation(int(mask.sum()))).to(sample.effects.device)
        )

    M, b, _ = _chosen_ridge(
        wrong(sample.split.train), wrong(sample.split.validation), settings.penalties
    )
    return sample.r2(sample.split.test, M, b)


def _other_splits(sample: Sample, penalty: float | None, seed: int) -> dict[str, Any]:
    """R² of ridge fits to all rows but others that are held out, as many as in the split that is
    reported.

    Args:
        penalty: that was chosen; None where the method is no ridge, whose fits would take too long
            to make again.

    Returns:
        ``r2_splits``, the R² of up to `SPLITS` disjoint sets of held-out rows, and their standard
        deviation ``r2_sd``; null where there is none.
    """
    held = int(sample.split.test.sum())
    count = min(SPLITS, len(sample.vectors) // held)
    if penalty is None or count < 2:
        return {"r2_splits": None, "r2_sd": None}
    order = numpy_generator(seed, "approximator", "splits").permutation(len(sample.vectors))
    whole, values = sample.moments(np.arange(len(order))), []
    for split in range(count):
        rows = order[split * held : (split + 1) * held]
        M, b = solve(whole.less(sample.moments(rows)), penalty)
        values.append(sample.r2(rows, M, b))
    defined = [value for value in values if value is not None]
    return {
        "r2_splits": values,
        "r2_sd": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
    }


def _noise(
    standard_error: EffectRows | None, mask: NDArray[np.bool_]
) -> Float[Tensor, " d_sae"] | None:
    """The mean squared standard error of every latent's effects on the rows of a mask."""
    if standard_error is None:
        return None
    total = torch.zeros(standard_error.shape[1], dtype=torch.float64)
    for start in range(0, len(mask), CHUNK):
        rows = np.flatnonzero(mask[start : start + CHUNK])
        if len(rows):
            errors = torch.as_tensor(standard_error[start : start + CHUNK])[torch.from_numpy(rows)]
            total += errors.double().square().sum(0)
    return total / int(mask.sum())
