"""Where the latents of an SAE fire, from the cache of activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.examples.settings import Examples
from saeflow.config.face import Analysis

if TYPE_CHECKING:
    from saeflow.analyses import Study

TABLES = ("latents", "contexts", "histogram", "cofiring", "vocabulary")


def saes(study: Study) -> list[str]:
    """The SAEs whose latents are looked at: those of the study's own model; crosscoders read more
    than one cache."""
    return study.own_saes_of("sae", "transcoder")


ANALYSIS: Analysis[Study, Examples] = Analysis(
    key="examples",
    settings=Examples,
    names=lambda study, own: {"example_sae": saes(study)},
    outputs=lambda study, own: [f"examples/{{example_sae}}/{table}.parquet" for table in TABLES],
    cached_saes=lambda study, own: saes(study),
)
