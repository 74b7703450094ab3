"""What one section of a study says and another denies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.config.addresses import fault_of_address
from saeflow.config.model_files import context_in, too_long
from saeflow.config.prompting import about_prompts
from saeflow.config.section import BUT_FOR_CASE, Complaint, same_but_for_case
from saeflow.config.sections.steering import PLANTED

if TYPE_CHECKING:
    from saeflow.config.any_study import AnyStudy
    from saeflow.config.sections import Model, Study

# in the order of the forward pass
SITES = (
    "hook_resid_pre",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "mlp.hook_in",
    "hook_mlp_out",
    "hook_resid_post",
)


AVERAGE = "average"
MOST_JOBS = 100_000
"""Of a kind: 7,232 jobs are planned in 19 s, and growth is near linear."""
_NO_EXAMPLES = "reads where latents fire, which is not asked for; set examples: {}"


def disagreements(study: Study) -> list[Complaint]:
    """Every disagreement between sections, as the key to change and the reason."""
    return [
        *about_names(study),
        *_about_jobs(study),
        *_about_the_hook(study),
        *_about_the_corpus(study),
        *_about_training(study),
        *group_disagreements(study),
        *_about_models(study),
        *_about_contexts(study),
        *_about_effects(study),
        *_about_steering(study),
        *about_prompts(study),
        *_about_the_judge(study),
        *([("logit_lens", _NO_EXAMPLES)] if study.logit_lens and not study.examples else []),
    ]


def group_disagreements(study: AnyStudy) -> list[Complaint]:
    """What SAEs that are trained together say differently, in a study of any kind."""
    found: list[Complaint] = []
    for first, *others in study.trainings.values():
        for name in others:
            for key in ("batch_size", "accumulate", "tokens"):
                mine, its = (getattr(study.saes[sae].train, key) for sae in (name, first))
                if mine != its:
                    reason = (
                        f"{mine} is not {its} as in '{first}' of the same group; a group is "
                        "trained on the same batches"
                    )
                    found.append((f"saes.{name}.train.{key}", reason))
            if study.caches_of(name) != study.caches_of(first):
                reason = (
                    f"reads or writes elsewhere than '{first}' of the same group; a group is "
                    "trained on one cache"
                )
                found.append((f"saes.{name}", reason))
    return found


def about_names(study: AnyStudy) -> list[Complaint]:
    """SAEs and models whose folders are one where a disk does not tell capitals apart, in a study
    of any kind."""
    return [
        (key, f"'{name}' {BUT_FOR_CASE.format(earlier)}")
        for key, names in (("saes", list(study.saes)), ("models", list(study.all_models)))
        for name, earlier in same_but_for_case(names)
    ]


def too_many_jobs(key: str, jobs: int, larger: str) -> list[Complaint]:
    """A complaint where Snakemake would plan for hours.

    Args:
        key: what there is much of.
        jobs: how many jobs share it.
        larger: the key of what one of them does.
    """
    reason = (
        f"is the work of {jobs:,} jobs, and a study may have {MOST_JOBS:,} of a kind; lower it or "
        f"raise {larger}"
    )
    return [(key, reason)] if jobs > MOST_JOBS else []


def _about_jobs(study: Study) -> list[Complaint]:
    tokens, vectors = study.corpus.tokens.sae, study.effects.vectors
    shard = study.corpus.context * study.activations.blocks_per_shard
    complaints = too_many_jobs("corpus.tokens.sae", tokens // shard, "activations.blocks_per_shard")
    source = study.saes.get(vectors.sae or study.steering_sae)
    declared = (source.declared_width or 0) if source and not vectors.path else 0
    count = vectors.range[1] - vectors.range[0] if vectors.range else declared
    key = "effects.vectors.range" if vectors.range else "effects.vectors"
    return complaints + too_many_jobs(key, count // study.effects.block_size, "effects.block_size")


def _about_models(study: Study) -> list[Complaint]:
    found = []
    known: list[str] = []
    for key, model in _models(study):
        if model.name in known:
            found.append(
                (f"{key}.name", f"another model is called '{model.name}', too; choose another name")
            )
        known.append(model.name)
        if model.dtype != study.model.dtype:
            reason = (
                f"'{model.dtype}' is not model.dtype '{study.model.dtype}'; what is compared is "
                "computed alike"
            )
            found.append((f"{key}.dtype", reason))
    for name, sae in study.saes.items():
        for i, wanted in enumerate(sae.models or []):
            if wanted not in known:
                reason = f"there is no model '{wanted}'; model and models name {', '.join(known)}"
                found.append((f"saes.{name}.models.{i}", reason))
    return found


def _models(study: Study) -> list[tuple[str, Model]]:
    """Every model with the key of its section."""
    return [
        ("model", study.model),
        *((f"models.{i}", model) for i, model in enumerate(study.models)),
    ]


def _about_the_hook(study: Study) -> list[Complaint]:
    found = []
    train = study.model.train
    saes = study.saes.items()
    named = [
        ("hook", study.hook),
        *((f"activations.hooks.{i}", hook) for i, hook in enumerate(study.activations.hooks)),
        *((f"saes.{name}.hook", sae.hook) for name, sae in saes if sae.hook),
        *((f"saes.{name}.target", sae.target) for name, sae in saes if sae.target),
        *(
            (f"saes.{name}.hooks.{i}", hook)
            for name, sae in saes
            for i, hook in enumerate(sae.hooks or [])
        ),
    ]
    for key, hook in named:
        if train and (layer := int(hook.split(".")[1])) >= train.n_layers:
            layers = f"model.train.n_layers is {train.n_layers} (layers 0..{train.n_layers - 1})"
            found.append((key, f"layer {layer} does not exist; {layers}"))
    for name, sae in saes:
        if sae.target and _place(sae.target) <= _place(hook := sae.hook or study.hook):
            found.append(
                (
                    f"saes.{name}.target",
                    f"'{sae.target}' does not come after '{hook}', which is read",
                )
            )
    if not study.hook.endswith(".hook_resid_post"):
        found.append(
            (
                "hook",
                f"'{study.hook}' cannot be steered; effects and steering need a hook_resid_post",
            )
        )
    return found


def _place(hook: str) -> tuple[int, int]:
    """Where a hook comes in the forward pass."""
    _, layer, site = hook.split(".", 2)
    return int(layer), SITES.index(site)


def _about_the_corpus(study: Study) -> list[Complaint]:
    found = []
    tales = study.corpus.kind == "tales"
    for key, model in _models(study):
        if model.train and not tales:
            reason = (
                "a model is trained here only on the corpus 'tales'; give path or published for "
                "other text"
            )
            found.append((f"{key}.train", reason))
    if tales and not study.model.train:
        reason = (
            "'tales' has words of its own, which only a model trained here (model.train) knows; "
            "set kind: text"
        )
        found.append(("corpus.kind", reason))
    known, path = (".txt", ".jsonl", ".parquet"), study.corpus.path
    if path and not path.endswith(known) and not Path(path).is_dir():
        found.append(
            (
                "corpus.path",
                f"'{path}' must end in .txt, .jsonl or .parquet, or be a folder of such files",
            )
        )
    return found


def _about_the_judge(study: Study) -> list[Complaint]:
    complaints = []
    if study.judge.kind == "planted" and study.corpus.kind != "tales":
        complaints.append(
            ("judge.kind", "'planted' knows only the corpus 'tales'; set kind: lexical")
        )
    if study.judge.base_url and (fault := fault_of_address(study.judge.base_url, study.calls.key)):
        complaints.append(("judge.base_url", fault))
    return complaints


def _about_training(study: Study) -> list[Complaint]:
    corpus = study.corpus
    trained = [(key, model.train) for key, model in _models(study) if model.train]
    if not trained or corpus.kind != "tales":
        return []
    found = []
    blocks = corpus.tokens.model // corpus.context
    if not blocks:
        reason = "is needed (at least one block of corpus.context) when the model is trained here"
        found.append(("corpus.tokens.model", reason))
    for key, train in trained:
        if train.batch_size > blocks > 0:
            reason = (
                f"{train.batch_size} blocks per step, but corpus.tokens.model gives only {blocks} "
                "in all"
            )
            found.append((f"{key}.train.batch_size", reason))
    for key, new_tokens in (
        ("effects", study.effects.new_tokens),
        ("steering", study.steering.new_tokens),
    ):
        if new_tokens >= corpus.context:
            reason = (
                f"{new_tokens} and a prompt do not fit corpus.context {corpus.context}, the "
                "model's length"
            )
            found.append((f"{key}.new_tokens", reason))
    return found


def _about_contexts(study: Study) -> list[Complaint]:
    """What is longer than models of this machine can read, which most would do without a word, and
    badly."""
    found = []
    for key, model in _models(study):
        if not model.path or not (context := context_in(Path(model.path))):
            continue
        if study.corpus.context > context:
            found.append(
                ("corpus.context", too_long(study.corpus.context, context, f"'{model.name}'"))
            )
        for section, new_tokens in (
            ("effects", study.effects.new_tokens),
            ("steering", study.steering.new_tokens),
        ):
            if key == "model" and new_tokens >= context:
                reason = (
                    f"{new_tokens} and a prompt do not fit the context of '{model.name}', "
                    f"{context}; lower it"
                )
                found.append((f"{section}.new_tokens", reason))
    return found


def _about_effects(study: Study) -> list[Complaint]:
    found = []
    corpus, tokens = study.corpus, study.effects.scale.tokens
    if tokens > corpus.tokens.eval:
        found.append(
            (
                "effects.scale.tokens",
                f"{tokens} is more than corpus.tokens.eval {corpus.tokens.eval}",
            )
        )
    if tokens < corpus.context:
        found.append(
            (
                "effects.scale.tokens",
                f"{tokens} is less than one block of corpus.context {corpus.context}",
            )
        )
    return found + _about_vectors(study)


def _about_vectors(study: Study) -> list[Complaint]:
    found = []
    vectors, share = study.effects.vectors, study.approximator.validation
    if vectors.sae and vectors.sae not in study.saes:
        found.append(
            (
                "effects.vectors.sae",
                f"there is no SAE '{vectors.sae}'; saes names {', '.join(study.saes)}",
            )
        )
    elif vectors.sae and study.saes[vectors.sae].kind == "crosscoder":
        found.append(
            (
                "effects.vectors.sae",
                f"'{vectors.sae}' is a crosscoder; name an SAE with vectors of one hook",
            )
        )
    source = study.saes.get(vectors.sae or study.steering_sae)
    latents = source.declared_width if source and not vectors.path else None
    count = vectors.range[1] - vectors.range[0] if vectors.range else latents
    if count and int(count * share) < 1:
        reason = (
            f"{share} of {count} vectors leaves no row to choose the penalty; raise it or measure "
            "more vectors"
        )
        found.append(("approximator.validation", reason))
    return found


def _about_steering(study: Study) -> list[Complaint]:
    found = []
    steering, share = study.steering, study.summary.selection
    source = study.saes.get(study.steering_sae)
    if not source:
        found.append(
            (
                "steering.sae",
                f"there is no SAE '{steering.sae}'; saes names {', '.join(study.saes)}",
            )
        )
    elif source.declared_width and steering.latents > source.declared_width:
        reason = (
            f"{steering.latents} is more than d_sae {source.declared_width} of SAE "
            f"'{study.steering_sae}'"
        )
        found.append(("steering.latents", reason))
    if source and source.kind != "sae":
        reason = f"'{study.steering_sae}' is a {source.kind}, and steering needs an SAE; name one"
        found.append(("steering.sae", reason))
    elif source and source.hook not in (None, study.hook):
        reason = (
            f"'{source.hook}' is not the study's hook '{study.hook}', where latents are targeted"
        )
        found.append(
            (f"saes.{study.steering_sae}.hook", f"{reason}; name another SAE in steering.sae")
        )
    if study.corpus.kind != "tales":
        for i, method in enumerate(steering.methods):
            if method.endswith(PLANTED):
                reason = (
                    f"'{method}' targets what detects a planted topic, and only the corpus 'tales' "
                    "plants any"
                )
                found.append((f"steering.methods.{i}", f"{reason}; remove it"))
    completions = steering.samples * len(steering.prompts)
    if not 1 <= math.floor(completions * share) < completions:
        reason = (
            f"{share} of {completions} completions leaves none to choose the scale; raise it or "
            "steering.samples"
        )
        found.append(("summary.selection", reason))
    if AVERAGE in study.goals.names:
        reason = f"'{AVERAGE}' is what tables call the mean over goals; choose another name"
        found.append((f"goals.names.{study.goals.names.index(AVERAGE)}", reason))
    if unknown := [goal for goal in study.figures.detail_goals if goal not in study.goals.names]:
        found.append(("figures.detail_goals", f"{', '.join(unknown)} is not in goals.names"))
    return found
