"""Directions in the residual stream: what they do when they are taken out or added, and how sure
that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.directions.settings import Directions
from saeflow.config.agreement import too_long_a_completion
from saeflow.config.face import Analysis
from saeflow.config.prompting import about_prompts
from saeflow.config.section import Complaint
from saeflow.config.sections import Message

if TYPE_CHECKING:
    from saeflow.analyses import Study

OF_MODEL = ("prompts.parquet",)
OF_DIRECTION = ("candidates.parquet", "direction.safetensors", "edits.parquet", "answers.parquet")
OF_JUDGE = ("verdicts.parquet", "judged.parquet")
OF_PAIRS = ("transfer.parquet", "angles.parquet")


def models(study: Study, own: Directions) -> list[str]:
    """The models that are edited."""
    return list(own.models or study.all_models)


def hooks_of_vectors(study: Study, own: Directions) -> dict[str, str]:
    """Where directions lie that are not searched for, as far as there is such an SAE."""
    hooks = {name: vector.hook for name, vector in own.sources.vector.items()}
    latents = own.sources.latent.items()
    return hooks | {
        name: study.hook_of(latent.sae) for name, latent in latents if latent.sae in study.saes
    }


def _outputs(study: Study, own: Directions) -> list[str]:
    several = len(models(study, own)) > 1
    of_direction = OF_DIRECTION + (OF_JUDGE if own.judged else ())
    return [
        *(f"directions/{{directed_model}}/{file}" for file in OF_MODEL),
        *(f"directions/{{directed_model}}/{{direction}}/{file}" for file in of_direction),
        *(f"directions/{{directed_model}}/{file}" for file in OF_PAIRS if several),
    ]


def _complaints(study: Study, own: Directions) -> list[Complaint]:
    complaints: list[Complaint] = []
    key, sources, there = "directions.sources", own.sources, ", ".join(study.all_models)
    for i, name in enumerate(own.models or []):
        if name not in study.all_models:
            reason = f"there is no model '{name}'; model and models name {there}"
            complaints.append((f"directions.models.{i}", reason))
    for name, difference in sources.difference_of_models.items():
        place = f"{key}.difference_of_models.{name}"
        for side in ("model", "less"):
            if (named := getattr(difference, side)) not in models(study, own):
                reason = f"'{named}' is not among directions.models; add it there"
                if named not in study.all_models:
                    reason = f"there is no model '{named}'; model and models name {there}"
                complaints.append((f"{place}.{side}", reason))
        if difference.model == difference.less:
            complaints.append((f"{place}.less", f"'{difference.less}' is the same model; name two"))
    for name, latent in sources.latent.items():
        complaints += _about_latent(study, f"{key}.latent.{name}", latent.sae, latent.latent)
    for name, vector in sources.vector.items():
        if not vector.hook.endswith(".hook_resid_post"):
            reason = f"'{vector.hook}' cannot be steered; name a hook_resid_post"
            complaints.append((f"{key}.vector.{name}.hook", reason))
    for name, hook in hooks_of_vectors(study, own).items():
        layer = int(hook.split(".")[1])
        if own.selection.layers and layer not in own.selection.layers:
            reason = f"is at layer {layer}, which directions.selection.layers lacks; add it there"
            place = f"vector.{name}.hook" if name in sources.vector else f"latent.{name}.sae"
            complaints.append((f"{key}.{place}", reason))
    for name in (each for each in ("published", "package") if getattr(own.prompts, each)):
        reason = "prompts are read from files here; get the file, and name it in path"
        complaints.append((f"directions.prompts.{name}", reason))
    if own.judged:
        if not own.measures.texts:
            reason = "a judge reads what is answered, and texts are not kept; set texts: true"
            complaints.append(("directions.measures.texts", reason))
        if why := own.judged.judge.traits.why_not(study.corpus.kind):
            complaints.append(("directions.judged.judge.kind", why))
    if own.prompts.value:
        complaints.append(("directions.prompts.value", "prompts have classes; name label"))
    spoken = [Message(role="user", content="?")] if own.prompts.speaker == "user" else "?"
    asked = dict.fromkeys(
        study.origin_of(name).name for name in models(study, own) if name in study.all_models
    )
    for name in asked:
        reasons = about_prompts(study.all_models[name], "directions.prompts.speaker", [spoken])
        complaints += [
            ("directions.prompts.speaker", f"'user' {reason}; or say nobody")
            for _, reason in reasons
        ]
    key = "directions.measures.new_tokens"
    return complaints + too_long_a_completion(study, key, own.measures.new_tokens)


def _about_latent(study: Study, key: str, name: str, latent: int) -> list[Complaint]:
    if not (sae := study.saes.get(name)):
        return [(f"{key}.sae", f"there is no SAE '{name}'; saes names {', '.join(study.saes)}")]
    hook = study.hook_of(name)
    if sae.kind != "sae" or not hook.endswith(".hook_resid_post"):
        return [
            (
                f"{key}.sae",
                f"'{name}' is a {sae.kind} at {hook}; name an SAE of a "
                "hook_resid_post, which its latents can be added to",
            )
        ]
    if sae.declared_width and latent >= sae.declared_width:
        return [
            (
                f"{key}.latent",
                f"{latent} is not below {sae.declared_width}, the latents of '{name}'",
            )
        ]
    return []


ANALYSIS: Analysis[Study, Directions] = Analysis(
    key="directions",
    settings=Directions,
    names=lambda study, own: {
        "directed_model": models(study, own),
        "direction": own.sources.names,
    },
    outputs=_outputs,
    complaints=_complaints,
    publishes=(
        "directions/*/*/candidates.parquet",
        "directions/*/*/direction.safetensors",
        "directions/*/*/edits.parquet",
        "directions/*/*/judged.parquet",
        "directions/*/transfer.parquet",
    ),
)
