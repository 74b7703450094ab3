"""What a stage of a study takes, and what it needs: the terms in which stages are planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saeflow.config.sections import Calls, Fetchable
from saeflow.endpoint.keys import key_of
from saeflow.planning.shape import ModelShape

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class StagePlan(NamedTuple):
    """The work of one stage."""

    stage: str
    jobs: int
    """Jobs of the workflow."""
    tokens: int
    """Tokens (of chess, positions) that pass through the model, or activations through an SAE that
    is trained; 0 where there are none, or nothing tells their number yet."""
    flop: int
    """Operations of the matrix products in it; 0 where the model is not on this machine yet."""
    disk: int
    """Bytes of the stage's results, roughly."""
    work: str
    """What is done, in words."""
    files: Sequence[str] = ()
    """What it ends with, below the study's folder; its work is in proportion to those that are not
    there."""

    def left(self, exists: Callable[[str], bool]) -> StagePlan:
        """What is left to do of it.

        Args:
            exists: tells whether a file below the study's folder is there.
        """
        files = len(self.files)
        if not (there := sum(map(exists, self.files))):
            return self
        jobs, tokens, flop, disk = (
            -(-count * (files - there) // files)
            for count in (self.jobs, self.tokens, self.flop, self.disk)
        )
        done = "done" if there == files else f"{there} of {files} files are there"
        return StagePlan(self.stage, jobs, tokens, flop, disk, f"{self.work}; {done}")


class Need(NamedTuple):
    """Something from outside that the study reads."""

    key: str
    """Of the config, which names it."""
    where: str
    present: bool | None
    """None where it lies on the hub and is looked for when it is fetched."""
    made: str | None = None
    """What a job makes of it, below the study's folder: where that is there, it is not missed. None
    for what all runs need, which the rules read themselves, and for programs, which may be on other
    machines alone."""
    meant: Sequence[str] = ()
    """Names like it that are there."""
    mend: str = "correct the name, or make it"
    """What to do where it is missing."""

    def said(self) -> str:
        """Why it is missing, and what to do."""
        near = f"did you mean {' or '.join(map(repr, self.meant))}?" if self.meant else ""
        return f"{self.key}: {self.where} is not there; {near or self.mend}"


def key_needs(calls: Calls, asks: bool) -> list[Need]:
    """The key of an endpoint, where one is asked that is not the user's own.

    Args:
        calls: the section.
        asks: whether anything asks it.
    """
    if not asks or calls.base_url:
        return []
    key = f"the variable {calls.key}, in the environment or .env,"
    mend = "set it, or name a server of your own as calls.base_url"
    held = key_of(calls) is not None
    return [Need("calls.key", key, held, made="judging/ledger.sqlite", mend=mend)]


def missing(needs: Iterable[Need], results: Path) -> list[Need]:
    """What the study reads that is not there, and that something is still to be made of.

    Args:
        needs: all that it reads from outside.
        results: the study's folder.
    """
    absent = (need for need in needs if need.present is False)
    return [need for need in absent if not (need.made and (results / need.made).exists())]


class Plan(NamedTuple):
    """All that `saeflow plan` says of a study."""

    heading: str
    unit: str
    """What `StagePlan.tokens` counts."""
    stages: list[StagePlan]
    needs: list[Need]
    remarks: list[str]
    """What else is to be known before the study is run."""
    rate: Callable[[str], float] | None = None
    """From a device to the operations per second of the study's matrix products on it, measured;
    None where the work is not known, or not told."""


@dataclass(frozen=True)
class Scope:
    """What is known when stages are planned."""

    shape: ModelShape | None
    """Of the model; where it is not known, neither work nor the size of what depends on its width
    is."""
    fetched: Mapping[str, Fetchable]
    """What is fetched instead of computed, by the key of its section."""

    @property
    def width(self) -> int:
        """Of the residual stream; 0 where it is not known."""
        return self.shape.d_model if self.shape else 0

    @property
    def unembedding(self) -> int:
        """Weights of the unembedding; 0 where it is not known."""
        return self.shape.unembedding if self.shape else 0

    def flop(self, first: int = 0, last: int | None = None, logits: bool = True) -> int:
        """Operations per token, as `ModelShape.flop`; 0 where the shape is not known."""
        return self.shape.flop(first, last, logits) if self.shape else 0

    def source(self, key: str, computed: str) -> str:
        """What is done for a section: how it is computed, or that it is fetched, and where from."""
        if not (published := self.fetched.get(key)):
            return computed
        return f"fetched: {' '.join(filter(None, [published.where, published.file]))}"
