"""What measuring and approximating effects takes, and what it reads from outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.analyses.effects.counts import block_files, vector_count
from saeflow.analyses.effects.settings import Effects
from saeflow.config.counts import latent_count
from saeflow.counting import counted
from saeflow.planning.work import BYTES, Need, Scope, StagePlan

if TYPE_CHECKING:
    from saeflow.analyses import Study

LOSSES_PER_SEARCH = 2.3  # measured; the first look, on a part of the text, is counted as its share


def work(study: Study, own: Effects, scope: Scope) -> list[StagePlan]:
    """Rollouts and searches for scales of all vectors, and the fit."""
    is_fetched, measured = "effects" in scope.fetched, own.measurement
    vectors = 0 if is_fetched else vector_count(study, own)
    blocks = [] if is_fetched else block_files(study, own, study.target_sae)
    d_sae = latents(study, scope)
    rollouts = len(measured.prompts) * measured.samples
    steered = vectors * rollouts * measured.new_tokens
    searched = vectors * round(LOSSES_PER_SEARCH * measured.scale.tokens)
    baseline = len(measured.prompts) * measured.baseline_samples * measured.new_tokens
    above = scope.flop(first=study.layer + 1)
    counts = {"vector": vectors, "rollout": rollouts, "token": measured.new_tokens}
    what = " × ".join(counted(count, noun) for noun, count in counts.items())
    return [
        StagePlan(
            "effects",
            len(blocks) + 2,
            steered + searched + baseline,
            (steered + baseline) * in_sae(study, scope) + searched * above,
            vectors * ((4 + BYTES[own.dtype]) * d_sae + 8 * scope.width),
            scope.source("effects", what),
            [*blocks, f"effects/{study.target_sae}/effects.h5"],
        ),
        _fit(own, scope, vectors, d_sae),
    ]


def _fit(own: Effects, scope: Scope, vectors: int, d_sae: int) -> StagePlan:
    width, method = scope.width, own.approximator.method
    is_fetched = "effects.approximator" in scope.fetched
    return StagePlan(
        "approximator",
        2 if is_fetched else 1,
        0,
        0 if is_fetched else 2 * vectors * width * (width + d_sae),
        4 * width * (d_sae + width),
        scope.source("effects.approximator", f"{method}, {width} × {d_sae}" if width else method),
    )


def latents(study: Study, scope: Scope) -> int:
    """Latents of the SAE that is steered with."""
    declared = study.saes[study.target_sae].declared_width
    if declared is not None:
        return declared
    return 0 if "effects" in scope.fetched else latent_count(study, study.target_sae)


def in_sae(study: Study, scope: Scope) -> int:
    """Operations per token of a steered pass whose latents are read."""
    return scope.flop() + 2 * scope.width * latents(study, scope)


def needs(study: Study, own: Effects) -> list[Need]:
    """The file of vectors to measure."""
    file = own.vectors.path
    return [Need("effects.vectors.path", file, Path(file).is_file())] if file else []
