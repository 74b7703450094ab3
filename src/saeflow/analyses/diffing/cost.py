"""What comparing models takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.diffing import OF_CROSSCODER, OF_MODEL, OF_PAIR, compared, crosscoders
from saeflow.analyses.diffing.settings import Diffing
from saeflow.counting import counted
from saeflow.planning.work import Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study

ALWAYS = 8
"""Parts of the difference that are tried whatever is asked for."""
CLASSES = 5
"""Classes that have latents, about."""
PROMPTS = 2 * 64
"""Tokens of prompts for each that is drawn of every class, about."""


def work(study: Study, own: Diffing, scope: Scope) -> list[StagePlan]:
    """Passes of both models over text, one for every part of the difference that is put in."""
    models, saes, context = compared(study, own), crosscoders(study, own), study.corpus.context
    plain, causal, steering = own.baselines, own.causal, own.baselines.steering
    said = (1 + 2 * len(steering.scales)) * steering.prompts * steering.new_tokens * 2
    baselines = len(models) * (6 * plain.blocks * context + said)
    tried = ALWAYS + (CLASSES + len(causal.numbers)) * (1 + causal.random) + causal.singles
    of_text = causal.blocks * context + (PROMPTS * causal.prompts.each if causal.prompts else 0)
    of_latents = 4 * own.classes.blocks * context + tried * of_text
    pairs = own.matching.pairs
    of_pairs = len(pairs) * 4 * own.classes.blocks * context
    tokens = baselines + len(saes) * of_latents + of_pairs
    files = [f"diffing/models/{name}/{file}" for name in models for file in OF_MODEL]
    files += [f"diffing/saes/{name}/{file}" for name in saes for file in OF_CROSSCODER]
    files += [f"diffing/matching/{name}/{file}" for name in pairs for file in OF_PAIR]
    what = f"{counted(len(models), 'model')} compared, in {counted(len(saes), 'crosscoder')}"
    jobs = len(models) + 3 * len(saes) + len(pairs)
    return [StagePlan("diffing", jobs, tokens, tokens * scope.flop(), 5_000_000, what, files)]
