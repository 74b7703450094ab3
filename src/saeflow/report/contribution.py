"""What an analysis adds to the report of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saeflow.palette import Look
from saeflow.report.wording import Fact


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page that an analysis fills."""

    template: str
    """Below ``templates/`` of the analysis's folder."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What it is filled from."""
    label: str | None = None
    """What the bar of every page calls it; None where it is reached from another page."""


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What ``page.py`` of an analysis gives by its function ``contribute(folder, output)``."""

    pages: Mapping[str, Page] = field(default_factory=dict)
    """By the name of the file, without its suffix; in the order of the bar."""
    assets: Sequence[str] = ()
    """Scripts below ``assets/`` of the analysis's folder."""
    headline: Sequence[str] = ()
    """What it found, in sentences, for the first page."""
    tiles: Sequence[Fact] = ()
    """The study at a glance."""
    run: Sequence[Fact] = ()
    """What was run."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Names as people read them, such as of goals."""
    looks: Mapping[str, Look] = field(default_factory=dict)
    """How series are drawn, such as methods."""
    sae_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By SAE, numbers that `saeflow.report.wording.METRICS` names, for the page of SAEs."""
    latent_saes: Sequence[str] = ()
    """SAEs whose latents have pages, as ``latents.html#/<sae>/<latent>``."""
