"""What one section of a study says and another denies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.config.addresses import fault_of_address
from saeflow.config.gguf_header import gguf_header, is_gguf
from saeflow.config.hooks import OF_A_MODULE, SITES
from saeflow.config.model_files import (
    LAYER_NAMES,
    context_in,
    fault_of_checkpoint,
    size_in,
    too_long,
)
from saeflow.config.prompting import why_no_messages
from saeflow.config.sae_files import latents_of
from saeflow.config.section import BUT_FOR_CASE, Complaint, same_but_for_case
from saeflow.config.shipped import shipped_or_own
from saeflow.config.text_files import KINDS_IN_WORDS, kind_of
from saeflow.config.widths import about_widths
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.config.any_study import AnyStudy
    from saeflow.config.sections import Core, Model

MOST_JOBS = 100_000
"""Of a kind: 7,232 jobs are planned in 19 s, and growth is near linear."""


def disagreements(study: Core) -> list[Complaint]:
    """Every disagreement between sections, as the key to change and the reason."""
    return [
        *about_names(study),
        *_about_jobs(study),
        *_about_hooks(study),
        *_about_the_corpus(study),
        *_about_training(study),
        *group_disagreements(study),
        *initial_disagreements(study),
        *_about_models(study),
        *_about_tuning(study),
        *_about_files_of_models(study),
        *_about_files_of_saes(study),
        *about_widths(study),
        *_about_contexts(study),
        *_about_the_endpoint(study),
        *_about_publishing(study),
        *(
            complaint
            for analysis, own in study.asked
            for complaint in analysis.complaints(study, own)
        ),
    ]


def group_disagreements(study: AnyStudy) -> list[Complaint]:
    """What SAEs that are trained together say differently, in a study of any kind."""
    complaints: list[Complaint] = []
    for first, *others in study.trainings.values():
        for name in others:
            for key in ("batch_size", "accumulate", "tokens"):
                mine, its = (getattr(study.saes[sae].train, key) for sae in (name, first))
                if mine != its:
                    reason = (
                        f"{mine} is not {its} as in '{first}' of the same group; a group is "
                        "trained on the same batches"
                    )
                    complaints.append((f"saes.{name}.train.{key}", reason))
            left_out = [getattr(study.saes[sae], "leave_out", None) for sae in (name, first)]
            if left_out[0] != left_out[1]:
                reason = (
                    f"is not that of '{first}' of the same group; a group is trained on the same "
                    "batches"
                )
                complaints.append((f"saes.{name}.leave_out", reason))
            kinds = [getattr(study.saes[sae], "kind", "sae") for sae in (name, first)]
            if kinds[0] != kinds[1] or study.caches_of(name) != study.caches_of(first):
                reason = (
                    f"reads or writes elsewhere than '{first}' of the same group; a group is "
                    "trained on one cache"
                )
                complaints.append((f"saes.{name}", reason))
    return complaints


def initial_disagreements(study: AnyStudy) -> list[Complaint]:
    """Trainings that cannot begin with the weights that they name, in a study of any kind."""
    complaints: list[Complaint] = []
    group_of = {name: group for group, names in study.trainings.items() for name in names}
    for name, sae in study.saes.items():
        if not (sae.train and sae.train.init_from):
            continue
        key, other = f"saes.{name}.train.init_from", sae.train.init_from
        if getattr(sae, "hooks", None) or getattr(sae, "models", None):
            complaints.append((key, "is for SAEs and transcoders; this is a crosscoder"))
        if other not in study.saes:
            complaints += _other_latents(key, other, shipped_or_own(other), "auto", sae.train.d_sae)
            continue
        begun = study.saes[other]
        theirs = begun.train
        if getattr(begun, "kind", "sae") == "crosscoder":
            complaints.append((key, f"'{other}' is a crosscoder; name an SAE or a transcoder"))
        elif group_of.get(other) == group_of[name]:
            reason = f"'{other}' is trained by the same job; name an SAE outside of its group"
            complaints.append((key, reason))
        elif name in _begun_with(study, other):
            reason = f"'{other}' begins with the weights of '{name}' itself; name another"
            complaints.append((key, reason))
        elif theirs:
            for field in ("architecture", "d_sae"):
                mine, its = getattr(sae.train, field), getattr(theirs, field)
                if mine != its:
                    reason = f"'{other}' has {field} {its}, and this SAE {mine}; make them equal"
                    complaints.append((key, reason))
        elif begun.path:
            place = Path(begun.path)
            complaints += _other_latents(key, other, place, begun.format, sae.train.d_sae)
    return complaints


def _other_latents(key: str, name: str, place: Path, named: str, own: int) -> list[Complaint]:
    """Weights from elsewhere that are of another number of latents than the training begun with
    them."""
    if not place.exists():
        return []
    try:
        latents = latents_of(place, named)
    except SaeflowError as error:
        return [(key, str(error))]
    if latents == own:
        return []
    return [(key, f"'{name}' has d_sae {latents}, and this SAE {own}; make them equal")]


def _begun_with(study: AnyStudy, name: str) -> list[str]:
    """The SAEs whose weights a training comes from, in their order."""
    line: list[str] = []
    while name in study.saes and name not in line:
        line.append(name)
        train = study.saes[name].train
        name = (train and train.init_from) or ""
    return line


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


def _about_jobs(study: Core) -> list[Complaint]:
    shard = study.corpus.context * study.activations.blocks_per_shard
    jobs = study.corpus.tokens.sae // shard
    return too_many_jobs("corpus.tokens.sae", jobs, "activations.blocks_per_shard")


def _about_models(study: Core) -> list[Complaint]:
    complaints = []
    names: list[str] = []
    for key, model in _models(study):
        if model.name in names:
            reason = f"another model is called '{model.name}', too; choose another name"
            complaints.append((f"{key}.name", reason))
        names.append(model.name)
        if model.dtype != study.model.dtype:
            reason = (
                f"'{model.dtype}' is not model.dtype '{study.model.dtype}'; what is compared is "
                "computed alike"
            )
            complaints.append((f"{key}.dtype", reason))
    for name, sae in study.saes.items():
        several = {"models": sae.models or [], "difference": sae.difference or []}
        named = {f"{key}.{i}": its for key, of in several.items() for i, its in enumerate(of)}
        named |= {"model": sae.model} if sae.model else {}
        for key, wanted in named.items():
            if wanted not in names:
                reason = f"there is no model '{wanted}'; model and models name {', '.join(names)}"
                complaints.append((f"saes.{name}.{key}", reason))
    return complaints


def _about_tuning(study: Core) -> list[Complaint]:
    """Copies of models that there are none of."""
    complaints = []
    for key, model in _models(study):
        if not (tune := model.tune):
            continue
        base = tune.of or study.model.name
        others = [name for name, other in study.all_models.items() if not other.tune]
        if base not in others:
            there = f"model and models name {', '.join(others) or 'none that is not tuned itself'}"
            reason = f"'{base}' is no model to tune a copy of; {there}"
            complaints.append((f"{key}.tune.of", reason))
    return complaints


def _models(study: Core) -> list[tuple[str, Model]]:
    """Every model with the key of its section."""
    return [
        ("model", study.model),
        *((f"models.{i}", model) for i, model in enumerate(study.models)),
    ]


def layers_beyond(study: Core, layers: Iterable[tuple[str, int]]) -> list[Complaint]:
    """A complaint for each layer that a model of the study does not have, as far as its depth is
    known.

    Args:
        study: the study.
        layers: counted from 0, each with the key that names it.
    """
    # The models that are on this machine, by what says how many layers they have.
    depths = {m.path: size_in(Path(m.path), LAYER_NAMES) for _, m in _models(study) if m.path}
    if study.model.train:
        depths["model.train"] = study.model.train.n_layers
    return [
        (key, f"layer {layer} does not exist; the model of {model} has 0 to {depth - 1}")
        for key, layer in layers
        for model, depth in depths.items()
        if depth and layer >= depth
    ]


def _about_hooks(study: Core) -> list[Complaint]:
    train, saes = study.model.train, study.saes.items()
    named = [
        ("hook", study.hook),
        *((f"hooks.{i}", hook) for i, hook in enumerate(study.hooks)),
        *((f"saes.{name}.hook", sae.hook) for name, sae in saes if sae.hook),
        *((f"saes.{name}.target", sae.target) for name, sae in saes if sae.target),
        *(
            (f"saes.{name}.hooks.{i}", hook)
            for name, sae in saes
            for i, hook in enumerate(sae.hooks or [])
        ),
    ]
    complaints = layers_beyond(study, ((key, int(hook.split(".")[1])) for key, hook in named))
    for key, hook in named:
        _, layer, site = hook.split(".", 2)
        if train and (added := OF_A_MODULE.get(site)):
            name = f"blocks.{layer}.{added}"
            complaints.append((key, f"is {name} in a model that is trained here; write that"))
    for name, sae in saes:
        if sae.target and _place(sae.target) <= _place(hook := sae.hook or study.hook):
            reason = f"'{sae.target}' does not come after '{hook}', which is read"
            complaints.append((f"saes.{name}.target", reason))
    return complaints


def _place(hook: str) -> tuple[int, int]:
    """Where a hook comes in the forward pass."""
    _, layer, site = hook.split(".", 2)
    return int(layer), SITES.index(site)


def _about_the_corpus(study: Core) -> list[Complaint]:
    complaints = []
    tales = study.corpus.kind == "tales"
    for key, model in _models(study):
        if model.train and not tales:
            reason = (
                "a model is trained here only on the corpus 'tales'; give path, published or "
                "package for other text"
            )
            complaints.append((f"{key}.train", reason))
    if tales and not study.origin_of(study.model.name).train:
        reason = (
            "'tales' has words of its own, which only a model trained here (model.train) knows; "
            "set kind: text"
        )
        complaints.append(("corpus.kind", reason))
    complaints += [
        ("corpus.path", f"'{path}' must end in {KINDS_IN_WORDS}, or be a folder of such files")
        for path in study.corpus.paths
        if not kind_of(path) and not shipped_or_own(path).is_dir()
    ]
    if study.corpus.messages and (why_not := why_no_messages(study.model)):
        complaints.append(("corpus.messages", f"names messages, and {why_not}"))
    return complaints


def _about_training(study: Core) -> list[Complaint]:
    corpus = study.corpus
    trained = [(key, model.train) for key, model in _models(study) if model.train]
    if not trained or corpus.kind != "tales":
        return []
    complaints = []
    blocks = corpus.tokens.model // corpus.context
    if not blocks:
        reason = "is needed (at least one block of corpus.context) when the model is trained here"
        complaints.append(("corpus.tokens.model", reason))
    for key, train in trained:
        if train.batch_size > blocks > 0:
            reason = (
                f"{train.batch_size} blocks per step, but corpus.tokens.model gives only {blocks} "
                "in all"
            )
            complaints.append((f"{key}.train.batch_size", reason))
    return complaints


def _about_files_of_models(study: Core) -> list[Complaint]:
    """What is known already of a file or a folder that no model can be made of."""
    faults = ((key, _fault_of(Path(model.path))) for key, model in _models(study) if model.path)
    return [(f"{key}.path", fault) for key, fault in faults if fault]


def _about_files_of_saes(study: Core) -> list[Complaint]:
    """What is known already of a file or a folder that no SAE can be read from."""
    complaints = []
    for name, sae in study.saes.items():
        if not sae.path or sae.kind == "crosscoder" or not Path(sae.path).exists():
            continue
        try:
            latents_of(Path(sae.path), sae.format)
        except SaeflowError as error:
            complaints.append((f"saes.{name}.path", str(error)))
    return complaints


def _fault_of(path: Path) -> str | None:
    if is_gguf(path) and path.is_file():
        try:
            gguf_header(path)
        except SaeflowError as error:
            return str(error)
    elif (path / "config.json").is_file() and (fault := fault_of_checkpoint(path)):
        return f"{path}: {fault}"
    return None


def _about_contexts(study: Core) -> list[Complaint]:
    """What is longer than models of this machine can read, which most would do without a word, and
    badly."""
    complaints = []
    for _, model in _models(study):
        context = context_in(Path(model.path)) if model.path else None
        if context and study.corpus.context > context:
            reason = too_long(study.corpus.context, context, f"'{model.name}'")
            complaints.append(("corpus.context", reason))
    return complaints


def _about_the_endpoint(study: Core) -> list[Complaint]:
    url = study.calls.base_url
    fault = fault_of_address(url, study.calls.key) if url else None
    return [("calls.base_url", fault)] if fault else []


def _about_publishing(study: Core) -> list[Complaint]:
    there = ["saes", "figures", *(each.key for each, _ in study.asked if each.publishes)]
    reason = f"is nothing that this study publishes; it has {', '.join(there)}"
    return [
        (f"publish.contents.{i}", f"'{name}' {reason}")
        for i, name in enumerate(study.publish.contents or ())
        if name not in there
    ]


def too_long_a_completion(study: Core, key: str, new_tokens: int) -> list[Complaint]:
    """A complaint where a prompt and what is written after it do not fit the model.

    Args:
        study: the study.
        key: that says how many tokens are written.
        new_tokens: the tokens.
    """
    unfit = f"{new_tokens} and a prompt do not fit"
    if study.model.train and study.corpus.kind == "tales" and new_tokens >= study.corpus.context:
        return [(key, f"{unfit} corpus.context {study.corpus.context}, the model's length")]
    context = context_in(Path(study.model.path)) if study.model.path else None
    if context and new_tokens >= context:
        return [(key, f"{unfit} the context of '{study.model.name}', {context}; lower it")]
    return []


def unsteerable(study: Core, key: str) -> list[Complaint]:
    """A complaint where the study's hook is none that vectors are added at.

    Args:
        study: the study.
        key: of the analysis that adds them.
    """
    if study.hook.endswith(".hook_resid_post"):
        return []
    return [("hook", f"'{study.hook}' cannot be steered; {key} needs a hook_resid_post")]
