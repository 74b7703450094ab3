"""What steering vectors do to every latent, and the linear map that predicts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.effects.settings import Effects
from saeflow.config.agreement import too_long_a_completion, too_many_jobs, unsteerable
from saeflow.config.face import Analysis, Origin
from saeflow.config.prompting import about_prompts
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

EFFECTS = "effects/{target_sae}/effects.h5"
APPROXIMATOR = "effects/{target_sae}/approximator.safetensors"


def _complaints(study: Study, own: Effects) -> list[Complaint]:
    measured = own.measurement
    return [
        *unsteerable(study, "effects"),
        *_about_the_sae(study, own),
        *_about_vectors(study, own),
        *_about_scales(study, own),
        *too_long_a_completion(study, "effects.measurement.new_tokens", measured.new_tokens),
        *about_prompts(study.model, "effects.measurement.prompts", measured.prompts),
    ]


def _about_the_sae(study: Study, own: Effects) -> list[Complaint]:
    key = "steering.sae" if study.steering and study.steering.sae else "effects.sae"
    if study.steering and None is not study.steering.sae != own.sae is not None:
        reason = f"'{own.sae}' is not steering.sae '{study.steering.sae}'; name one in both"
        return [("effects.sae", reason)]
    return study.complaints_about_target(key)


def _about_scales(study: Study, own: Effects) -> list[Complaint]:
    key, tokens = "effects.measurement.scale.tokens", own.measurement.scale.tokens
    corpus = study.corpus
    complaints = []
    if tokens > corpus.tokens.eval:
        complaints.append((key, f"{tokens} is more than corpus.tokens.eval {corpus.tokens.eval}"))
    if tokens < corpus.context:
        reason = f"{tokens} is less than one block of corpus.context {corpus.context}"
        complaints.append((key, reason))
    return complaints


def _about_vectors(study: Study, own: Effects) -> list[Complaint]:
    vectors, share = own.vectors, own.approximator.validation
    complaints = []
    if vectors.sae and vectors.sae not in study.saes:
        reason = f"there is no SAE '{vectors.sae}'; saes names {', '.join(study.saes)}"
        complaints.append(("effects.vectors.sae", reason))
    elif vectors.sae and study.saes[vectors.sae].kind == "crosscoder":
        reason = f"'{vectors.sae}' is a crosscoder; name an SAE with vectors of one hook"
        complaints.append(("effects.vectors.sae", reason))
    counted = vectors.sae or study.target_sae
    source = study.saes.get(counted)
    measured_here = not own.published or own.source == "compute"
    if source and measured_here and not (vectors.path or source.declared_width or source.path):
        reason = "is needed, since latents are counted before the SAE is fetched; give their number"
        complaints.append((f"saes.{counted}.d_sae", reason))
    declared = (source.declared_width or 0) if source and not vectors.path else 0
    count = vectors.range[1] - vectors.range[0] if vectors.range else declared
    if count and int(count * share) < 1:
        reason = (
            f"{share} of {count} vectors leaves no row to choose the penalty; raise it or measure "
            "more vectors"
        )
        complaints.append(("effects.approximator.validation", reason))
    key = "effects.vectors.range" if vectors.range else "effects.vectors"
    jobs = count // vectors.block_size
    return complaints + too_many_jobs(key, jobs, "effects.vectors.block_size")


def _origin(study: Study, own: Effects, parts: tuple[str, ...]) -> Origin | None:
    match parts:
        case ("effects", sae, "effects.h5") if sae == study.target_sae:
            return Origin(own.published, own.source)
        case ("effects", sae, "approximator.safetensors") if sae == study.target_sae:
            return Origin(own.approximator.published, own.approximator.source)
    return None


ANALYSIS: Analysis[Study, Effects] = Analysis(
    key="effects",
    settings=Effects,
    names=lambda study, own: {"target_sae": [study.target_sae]},
    outputs=lambda study, own: [
        EFFECTS,
        "effects/{target_sae}/baseline.safetensors",
        APPROXIMATOR,
        "effects/{target_sae}/metrics.json",
        "effects/{target_sae}/latents.parquet",
        "effects/{target_sae}/predictions.parquet",
    ],
    complaints=_complaints,
    origin=_origin,
    fetched=lambda study, own: {
        "effects": EFFECTS.format(target_sae=study.target_sae),
        "effects.approximator": APPROXIMATOR.format(target_sae=study.target_sae),
    },
    publishes=(
        "effects/*/effects.h5",
        "effects/*/baseline.safetensors",
        "effects/*/approximator.safetensors",
        "effects/*/metrics.json",
        "effects/*/latents.parquet",
    ),
)
