"""What a training is fed with: batches of raw activations of one hook, of a pair, or of several
sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from saeflow.activations.io import ActivationStore
from saeflow.activations.reader import AlignedReader, ShuffledReader
from saeflow.errors import SaeflowError
from saeflow.saes.dictionary import Normalisation


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


def cache_feed(
    sources: Sequence[ActivationStore], target: ActivationStore | None, batch_size: int, seed: int
) -> Feed:
    """Shuffled batches of caches: of one, for an SAE; with a target, for a transcoder; of several,
    for a crosscoder.

    Args:
        sources: what is read.
        target: what a transcoder writes.
        batch_size: rows per batch.
        seed: of their order.

    Raises:
        SaeflowError: the caches hold other tokens or differ in width, or there is a target of
            several sources.
    """
    first, *others = sources
    metadata = {"model_name": first.model, "hook_name": first.hook, "prepend_bos": True}
    if others and target:
        raise SaeflowError(
            "sae: a crosscoder rebuilds what it reads; give one manifest with a target, or no "
            "target"
        )
    if others:
        if len({source.d_model for source in sources}) > 1:
            widths = ", ".join(f"{source.directory}: {source.d_model}" for source in sources)
            raise SaeflowError(
                f"sae: a crosscoder's sources have one width, these differ ({widths}); choose "
                "other hooks"
            )
        named = [{"model": source.model, "hook": source.hook} for source in sources]
        reader = AlignedReader(sources, batch_size, seed)
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
