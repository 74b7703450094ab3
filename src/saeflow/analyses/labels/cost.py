"""What labels take, and what they read from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.analyses.labels import crosscoders, saes, tables, tables_of_one_model
from saeflow.analyses.labels.settings import Labels
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan, key_needs

if TYPE_CHECKING:
    from saeflow.analyses import Study


def work(study: Study, own: Labels, scope: Scope) -> list[StagePlan]:
    """Tables of chosen latents; what models are asked counts for most."""
    alone = saes(study, own)
    names = [*alone, *crosscoders(study, own)]
    latents = len(own.latents.listed) + own.latents.drawn
    files = [f"labels/{name}/{table}.parquet" for name in names for table in tables(own)]
    only = tables_of_one_model(own)
    files += [f"labels/{name}/{table}.parquet" for name in alone for table in only]
    chosen = f"{counted(latents, 'latent')} of {counted(len(names), 'SAE')}"
    what = f"{chosen}, from {', '.join(own.sources)}"
    disk = 500 * latents * len(names) * len(own.sources)
    return [StagePlan("labels", len(files), 0, 0, disk, what, files)]


def needs(study: Study, own: Labels) -> list[Need]:
    """Files of labels, and the file of what is asked."""
    named = own.imported if "import" in own.sources else {}
    asks = []
    if own.scores.kinds or "explainer" in own.sources:
        prompts = shipped_or_own(own.asked.prompts)
        asks = [
            Need("labels.asked.prompts", str(prompts), prompts.is_file()),
            *key_needs(study.calls, own.asked.kind == "openai"),
        ]
    return asks + [
        Need(f"labels.imported.{sae}", path, Path(path).exists(), f"labels/{sae}/import")
        for sae, path in named.items()
        if sae in [*saes(study, own), *crosscoders(study, own)]
    ]
