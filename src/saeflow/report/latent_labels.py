"""What latents are called in words, the same wherever a page names one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from saeflow.report.folder import StudyFolder


class Label(NamedTuple):
    """Words for a latent.

    Attributes:
        source: who or what gave them.
        text: the words; written by models or strangers, so nothing but text.
        doubtful: whether no score has raised them above a random latent's.
    """

    source: str
    text: str
    doubtful: bool


class LatentLabels:
    """The label of any latent of a study; none where nothing labels it.

    Args:
        folder: of the study; None has no labels.
    """

    def __init__(self, folder: StudyFolder | None = None) -> None:
        self._folder = folder
        self._of_sae = cache(self._read)

    def of(self, sae: str | None, latent: int | None) -> Label | None:
        """The first label that is to be believed, else the first of all."""
        labels = self._of_sae(sae).get(latent, []) if sae and latent is not None else []
        believed = (label for label in labels if not label.doubtful)
        return next(believed, labels[0] if labels else None)

    def _read(self, sae: str) -> Mapping[int, list[Label]]:
        labels: dict[int, list[Label]] = {}
        if self._folder is not None:
            for latent, *label in told_of_latents(self._folder, "latent_words", sae):
                labels.setdefault(latent, []).append(Label(*label))  # type: ignore[arg-type]
        return labels


def told_of_latents(folder: StudyFolder, function: str, sae: str) -> list[list[object]]:
    """What the pages of analyses tell of single latents of an SAE by a function of this name."""
    return [
        row
        for analysis, section in folder.study.asked
        if (rows := analysis.declared("page", function))
        for row in rows(folder, section, sae)
    ]
