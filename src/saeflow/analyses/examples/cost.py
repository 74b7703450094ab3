"""What finding examples takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.examples import saes
from saeflow.analyses.examples.settings import Examples
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study


def work(study: Study, own: Examples, scope: Scope) -> list[StagePlan]:
    """One pass of every SAE over the cache."""
    names, tokens = saes(study), study.corpus.tokens.sae
    latents = sum(study.saes[name].declared_width or 0 for name in names)
    flop = latents * 2 * scope.width * tokens
    what = f"latents of {counted(len(names), 'SAE')}"
    return [StagePlan("examples", len(names), len(names) * tokens, flop, 6000 * latents, what)]
