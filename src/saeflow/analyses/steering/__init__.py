"""Steering towards goals: target latents, vectors, completions, scores, comparisons of methods."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from saeflow.analyses.steering.methods import AT_ANY_LAYER, PLANTED, method_of
from saeflow.analyses.steering.settings import Steering
from saeflow.config.agreement import layers_beyond, too_long_a_completion, unsteerable
from saeflow.config.face import Analysis, Origin
from saeflow.config.prompting import about_prompts
from saeflow.config.section import Complaint

if TYPE_CHECKING:
    from saeflow.analyses import Study

AVERAGE = "average"
"""What tables call the mean over goals."""
SUMMARIES = ("summary", "best", "comparisons", "matched", "three_way")
SEARCHED = ("search", "search_best")
VECTOR = "steering/{goal}/{method}/vector.safetensors"


def _outputs(study: Study, own: Steering) -> list[str]:
    return [
        "steering/targets.parquet",
        *(f"steering/{table}.parquet" for table in SUMMARIES),
        *(["steering/preferences.parquet", "steering/ratings.parquet"] if own.pairs else []),
        "steering/{goal}/latents.json",
        *(["steering/{goal}/side_effects.parquet"] if study.effects else []),
        *(["steering/{goal}/capability.parquet"] if own.capability else []),
        *(VECTOR.replace("{method}", method) for method in own.vectors.methods),
        *(
            f"steering/{{goal}}/{method}/prompts.parquet"
            for method in (own.prompting.methods if own.prompting else [])
        ),
        "steering/{goal}/{method}/completions.parquet",
        "steering/{goal}/{method}/scores.parquet",
        *([f"steering/{table}.parquet" for table in SEARCHED] if own.search else []),
    ]


def _complaints(study: Study, own: Steering) -> list[Complaint]:
    written = own.completions
    return [
        # effects, where they are asked for, complain about the hook and the SAE, too
        *([] if study.effects else unsteerable(study, "steering")),
        *([] if study.effects else study.complaints_about_target("steering.sae")),
        *_about_methods(study, own),
        *_about_goals(study, own),
        *_about_the_judge(study, own),
        *_about_halves(own),
        *_about_capability(study, own),
        *_about_search(study, own),
        *too_long_a_completion(study, "steering.completions.new_tokens", written.new_tokens),
        *about_prompts(study.model, "steering.completions.prompts", written.prompts),
    ]


def _about_methods(study: Study, own: Steering) -> list[Complaint]:
    complaints = []
    source = study.saes.get(study.target_sae)
    if source and source.declared_width and own.targets.latents > source.declared_width:
        reason = (
            f"{own.targets.latents} is more than d_sae {source.declared_width} of SAE "
            f"'{study.target_sae}'"
        )
        complaints.append(("steering.targets.latents", reason))
    for i, method in enumerate(own.vectors.methods):
        key = f"steering.vectors.methods.{i}"
        if method.endswith(PLANTED) and study.corpus.kind != "tales":
            reason = (
                f"'{method}' targets what detects a planted topic, and only the corpus 'tales' "
                "plants any; remove it"
            )
            complaints.append((key, reason))
    if own.prompting and "prompt" in own.prompting.methods and study.corpus.kind == "tales":
        reason = (
            "'prompt' says it in words that 'tales' does not have, and its model has read no "
            "others; remove it"
        )
        complaints.append(("steering.prompting.methods", reason))
    if built := _built_from_effects(own) if not study.effects else []:
        verb = "is" if len(built) == 1 else "are"
        reason = f"{verb} built from effects of vectors, which are not asked for; set effects: {{}}"
        complaints.append(("steering.vectors.methods", f"{', '.join(built)} {reason}"))
    return complaints


def _built_from_effects(own: Steering) -> list[str]:
    """The methods whose vectors are made here from the approximator of effects."""
    is_fetched = own.vectors.published and own.vectors.source != "compute"
    methods = [] if is_fetched else own.vectors.methods
    return [method for method in methods if method_of(method).needs_effects]


def _about_goals(study: Study, own: Steering) -> list[Complaint]:
    complaints = []
    if AVERAGE in own.goals.names:
        reason = f"'{AVERAGE}' is what tables call the mean over goals; choose another name"
        complaints.append((f"steering.goals.names.{own.goals.names.index(AVERAGE)}", reason))
    if unknown := [goal for goal in study.figures.detail_goals if goal not in own.goals.names]:
        reason = f"{', '.join(unknown)} is not in steering.goals.names"
        complaints.append(("figures.detail_goals", reason))
    return complaints


def _about_the_judge(study: Study, own: Steering) -> list[Complaint]:
    complaints = []
    if why := own.judge.traits.why_not(study.corpus.kind):
        complaints.append(("steering.judge.kind", why))
    messages = any(not isinstance(prompt, str) for prompt in own.completions.prompts)
    if own.judge.traits.is_hosted and own.judge.template == "rating@1" and messages:
        reason = (
            "'rating@1' has the marks of the chat template judged as text; set continuation@1, as "
            "prompts are messages"
        )
        complaints.append(("steering.judge.template", reason))
    return complaints


def _about_halves(own: Steering) -> list[Complaint]:
    written, complaints = own.completions, []
    keys = {"steering.completions.samples": written.samples}
    if own.search and own.search.samples:
        keys["steering.search.samples"] = own.search.samples
    for key, samples in keys.items():
        completions = samples * len(written.prompts)
        if not 1 <= math.floor(completions * own.summary.selection) < completions:
            reason = (
                f"{own.summary.selection} of {completions} completions leaves none to choose the "
                f"scale; raise it or {key}"
            )
            complaints.append(("steering.summary.selection", reason))
    return complaints


def _about_capability(study: Study, own: Steering) -> list[Complaint]:
    there = study.corpus.tokens.eval
    if not own.capability or own.capability.tokens <= there:
        return []
    reason = f"{own.capability.tokens} is more than corpus.tokens.eval {there}; lower it"
    return [("steering.capability.tokens", reason)]


def _about_search(study: Study, own: Steering) -> list[Complaint]:
    if not (search := own.search):
        return []
    complaints = layers_beyond(study, (("steering.search.layers", at) for at in search.layers))
    if absent := [method for method in search.methods if method not in own.vectors.methods]:
        reason = f"{', '.join(absent)} is not in steering.vectors.methods; add it there"
        complaints.append(("steering.search.methods", f"{reason}, or leave it out here"))
    if not set(search.methods) & set(AT_ANY_LAYER):
        reason = (
            f"{', '.join(search.methods)} is built from an SAE, which reads at {study.hook} alone; "
            f"name {' or '.join(AT_ANY_LAYER)}, which are built at every layer, too"
        )
        complaints.append(("steering.search.methods", reason))
    if search.tokens > (there := study.corpus.tokens.eval):
        reason = f"{search.tokens} is more than corpus.tokens.eval {there}; lower it"
        complaints.append(("steering.search.tokens", reason))
    return complaints


def _origin(study: Study, own: Steering, parts: tuple[str, ...]) -> Origin | None:
    match parts:
        case ("steering", _, _, "vector.safetensors"):
            return Origin(own.vectors.published, own.vectors.source)
    return None


ANALYSIS: Analysis[Study, Steering] = Analysis(
    key="steering",
    settings=Steering,
    builds_on=("effects",),
    names=lambda study, own: {"goal": own.goals.names, "method": own.methods},
    outputs=_outputs,
    complaints=_complaints,
    origin=_origin,
    fetched=lambda study, own: {"steering.vectors": VECTOR},
    reads=lambda study, own: [f"{own.goals.directory}/{name}.yaml" for name in own.goals.names],
    publishes=("steering/*/*/vector.safetensors", "steering/*.parquet", "steering/*.csv"),
)
