"""What latents do to the logits, and which sets of tokens stand out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses import examples
from saeflow.analyses.logit_lens.settings import LogitLens
from saeflow.config.face import Analysis
from saeflow.config.hooks import NOT_IN_THE_STREAM
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study


def saes(study: Study) -> list[str]:
    """The SAEs that are looked at: those whose decoder rows are directions of the residual
    stream."""
    written = {
        name: study.saes[name].target or study.hook_of(name) for name in examples.saes(study)
    }
    return [name for name, hook in written.items() if not hook.endswith(NOT_IN_THE_STREAM)]


def tables(own: LogitLens) -> list[str]:
    """The tables of one SAE that are made in one go."""
    names = ["latents", "tokens", "histograms", "scores", "enrichment", "splits"]
    return [*names, *(["gsea"] if own.enrichment.gsea else [])]


def _outputs(study: Study, own: LogitLens) -> list[str]:
    if not saes(study):
        return []
    of_sae = [*tables(own), "causal", "causal_latents"]
    return [
        *(f"logit_lens/{table}.parquet" for table in ("vocabulary", "sets", "members")),
        *(f"logit_lens/{{lens_sae}}/{table}.parquet" for table in of_sae),
    ]


def _complaints(study: Study, own: LogitLens) -> list[Complaint]:
    reason = "reads where latents fire, which is not asked for; set examples: {}"
    return [] if study.examples else [("logit_lens", reason)]


ANALYSIS: Analysis[Study, LogitLens] = Analysis(
    key="logit_lens",
    settings=LogitLens,
    builds_on=("examples",),
    names=lambda study, own: {"lens_sae": saes(study)},
    outputs=_outputs,
    complaints=_complaints,
)
