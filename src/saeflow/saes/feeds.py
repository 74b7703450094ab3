"""What a training is fed with: batches of raw activations of one hook, of a pair, of several
sources, or of what sets two models apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from saeflow.activations.io import ActivationStore
from saeflow.activations.reader import AlignedReader, ShuffledReader
from saeflow.activations.store import merge, statistics
from saeflow.errors import SaeflowError
from saeflow.saes.dictionary import Normalisation

MEASURED = 1 << 16
"""Rows by which a difference is normalised."""


class Batches(Protocol):
    """An endless run of batches whose place can be saved and sought.

    A batch is ``[batch, d_model]``; of several sources, ``[batch, n_sources, d_model]``; for a
    transcoder, a pair of ``[batch, d_in]`` and ``[batch, d_out]``, or both of one width as
    ``[batch, 2, d_model]``.
    """

    @property
    def identity(self) -> Any:
        """Everything that the batches are determined by; JSON."""

    def state(self) -> dict[str, Any]:
        """The place of the next batch."""

    def seek(self, state: dict[str, Any]) -> None:
        """Go to a place that `state` gave."""

    def __next__(self) -> Any:
        """The next batch."""


class Statistics(Protocol):
    """What must be known of a cache: its mean, fp64, and the mean squared distance to it."""

    @property
    def mean(self) -> Tensor:
        """Per dimension."""

    @property
    def variance(self) -> float:
        """Over all dimensions."""


@dataclass(frozen=True)
class Feed:
    """Batches, and how they become what is read and what is rebuilt.

    Attributes:
        reader: of raw batches.
        read: normalisation of what is read.
        written: of what is rebuilt; the same unless it is a transcoder.
        n_sources: how many sources lie side by side.
        metadata: for the SAE: ``model_name``, ``hook_name`` and more.
    """

    reader: Batches
    read: Normalisation
    written: Normalisation
    n_sources: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def d_in(self) -> int:
        """Width of what is read, all sources together."""
        return len(self.read.mean)

    @property
    def d_out(self) -> int | None:
        """Width of what a transcoder writes; None where what is read is rebuilt."""
        return None if self.written is self.read else len(self.written.mean)

    @property
    def identity(self) -> list[Any]:
        """Everything that the batches and their use are determined by."""
        return [self.reader.identity, self.n_sources, self.d_in, self.d_out]

    def next(self, device: str) -> tuple[Tensor, Tensor]:
        """What is read, and what is to be rebuilt: normalised, in fp32, on the device.

        Raises:
            SaeflowError: a batch has another width than the statistics.
        """
        batch = next(self.reader)
        if self.d_out is None:
            x = self._normalised(batch.flatten(1), self.read, device)
            return x, x
        x, target = batch.unbind(1) if isinstance(batch, Tensor) else batch
        x = self._normalised(x, self.read, device)
        return x, self._normalised(target, self.written, device)

    def _normalised(self, raw: Tensor, normalisation: Normalisation, device: str) -> Tensor:
        if raw.shape[1] != len(normalisation.mean):
            raise SaeflowError(
                f"sae: the activations have width {raw.shape[1]}, their statistics "
                f"{len(normalisation.mean)}; give statistics of these activations"
            )
        return normalisation.to(device)(raw.to(device, non_blocking=True))


def sae_feed(reader: Batches, statistics: Statistics, metadata: Mapping[str, Any]) -> Feed:
    """For SAEs of one hook."""
    normalisation = _normalisation(statistics)
    return Feed(reader, normalisation, normalisation, metadata=metadata)


def transcoder_feed(
    reader: Batches, read: Statistics, written: Statistics, metadata: Mapping[str, Any]
) -> Feed:
    """For transcoders, which read one hook and write another."""
    return Feed(reader, _normalisation(read), _normalisation(written), metadata=metadata)


def crosscoder_feed(
    reader: Batches, sources: Sequence[Statistics], metadata: Mapping[str, Any]
) -> Feed:
    """For crosscoders, which read and rebuild several sources of one width."""
    normalisation = Normalisation.joined([_normalisation(source) for source in sources])
    return Feed(reader, normalisation, normalisation, n_sources=len(sources), metadata=metadata)


class Differences:
    """Batches of what the second of two sources holds less what the first holds.

    Args:
        reader: of batches ``[batch, 2, d_model]``.
    """

    def __init__(self, reader: Batches) -> None:
        self._reader = reader

    @property
    def identity(self) -> Any:
        """That of the pairs, told apart from them."""
        return ["difference", self._reader.identity]

    def state(self) -> dict[str, Any]:
        """The place of the next batch."""
        return self._reader.state()

    def seek(self, state: dict[str, Any]) -> None:
        """Go to a place that `state` gave."""
        self._reader.seek(state)

    def __next__(self) -> Tensor:
        """The next batch ``[batch, d_model]``, fp32."""
        first, second = next(self._reader).unbind(1)
        difference: Tensor = second.float() - first.float()
        return difference


def difference_feed(reader: Batches, metadata: Mapping[str, Any]) -> Feed:
    """For SAEs of what sets two sources apart. Statistics are those of the first `MEASURED` rows,
    as caches hold only each source's own.

    Raises:
        SaeflowError: the sources hold the same.
    """
    differences, begin, parts, rows = Differences(reader), reader.state(), [], 0
    while rows < MEASURED:
        parts.append(statistics(next(differences)))
        rows += parts[-1].rows
    differences.seek(begin)
    measured = merge(parts)
    if not measured.variance:
        raise SaeflowError(
            "sae: both sources hold the same, and nothing is left to learn; name another model in "
            "difference"
        )
    normalisation = Normalisation.of(torch.from_numpy(measured.mean), measured.variance)
    return Feed(differences, normalisation, normalisation, metadata=metadata)


def cache_feed(
    sources: Sequence[ActivationStore],
    target: ActivationStore | None,
    batch_size: int,
    seed: int,
    difference: bool = False,
) -> Feed:
    """Shuffled batches of caches: of one, for an SAE; with a target, for a transcoder; of several,
    for a crosscoder; of two, for an SAE of their difference.

    Args:
        sources: what is read.
        target: what a transcoder writes.
        batch_size: rows per batch.
        seed: of their order.
        difference: whether the first is taken away from the second.

    Raises:
        SaeflowError: the caches hold other tokens or differ in width, there is a target of several
            sources, or a difference of other than two.
    """
    first, *others = sources
    metadata = {"model_name": first.model, "hook_name": first.hook, "prepend_bos": True}
    if difference and len(sources) != 2:
        raise SaeflowError(
            f"sae: a difference is of two sources, and {len(sources)} are given; give two manifests"
        )
    if others and target:
        what = "an SAE of a difference" if difference else "a crosscoder"
        raise SaeflowError(
            f"sae: {what} rebuilds what it reads; give one manifest with a target, or no target"
        )
    if others:
        whose = "a difference's" if difference else "a crosscoder's"
        if len({source.d_model for source in sources}) > 1:
            widths = ", ".join(f"{source.directory}: {source.d_model}" for source in sources)
            raise SaeflowError(
                f"sae: {whose} sources have one width, these differ ({widths}); choose other hooks"
            )
        named = [{"model": source.model, "hook": source.hook} for source in sources]
        reader = AlignedReader(sources, batch_size, seed)
        if difference:
            of_second = {"model_name": others[0].model, "hook_name": others[0].hook}
            return difference_feed(reader, {**metadata, **of_second, "difference": named})
        return crosscoder_feed(reader, sources, {"sources": named})
    if target:
        metadata |= {"hook_name_out": target.hook}
        reader = AlignedReader([first, target], batch_size, seed)
        return transcoder_feed(reader, first, target, metadata)
    return sae_feed(ShuffledReader(first, batch_size, seed), first, metadata)


def _normalisation(statistics: Statistics) -> Normalisation:
    if not torch.isfinite(statistics.mean).all() or not 0 < statistics.variance < torch.inf:
        raise SaeflowError(
            "sae: the cached activations are constant or not finite; cache them again"
        )
    return Normalisation.of(statistics.mean, statistics.variance)
