"""What the logit lens takes, and what it reads from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.analyses.logit_lens import saes
from saeflow.analyses.logit_lens.settings import LogitLens
from saeflow.config import read_token_sets
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.planning.work import Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study


def work(study: Study, own: LogitLens, scope: Scope) -> list[StagePlan]:
    """Every latent and every random direction through the unembedding; and the model over the text
    around every place where a latent is checked, once whole and once from the hook on."""
    names = saes(study)
    widths = [study.saes[name].declared_width or 0 for name in names]
    rows = sum(width + own.enrichment.directions for width in widths)
    jobs = 2 * len(names) + bool(names)
    checked = sum(min(own.causal.latents, width) for width in widths)
    tokens = 2 * checked * own.causal.contexts * study.corpus.context
    per_token = scope.flop(logits=False) + scope.flop(first=study.layer, logits=False)
    flop = rows * 2 * scope.unembedding + tokens * per_token
    work = f"{counted(len(names), 'SAE')}, {counted(checked, 'latent')} checked"
    return [StagePlan("logit_lens", jobs, tokens, flop, 6000 * sum(widths), work)]


def needs(study: Study, own: LogitLens) -> list[Need]:
    """Files with token sets; one that is there is read, so that what is wrong with it is said
    now."""
    key, files = "logit_lens.token_sets.files", map(shipped_or_own, own.token_sets.files)
    outside = [Need(key, str(file), file.is_file()) for file in files]
    for need in outside:
        if need.present:
            read_token_sets(Path(need.where))
    return outside
