"""What a study would run, stage by stage, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from saeflow.config.any_study import AnyStudy
from saeflow.config.embedded import is_embedded
from saeflow.config.gguf_header import is_gguf
from saeflow.config.locations import SAE_FILES, fetches, filled, location
from saeflow.config.prompting import why_no_messages
from saeflow.config.reading import read_pairs
from saeflow.config.sections import Core, Fetchable, ModelTraining
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.errors import SaeflowError
from saeflow.figures.figure import figures_of
from saeflow.models.places import said_elsewhere
from saeflow.planning.shape import ModelShape
from saeflow.planning.work import BYTES, Need, Scope, StagePlan
from saeflow.saes.named_places import READ, WRITTEN, places_of

# of an SAE's training step, in encoder products: 1.2 where it is sparse, up to 6 where it is not
DENSE_PRODUCTS = 2
CORPUS = "corpus/eval.safetensors"
SECONDS_PER_JOB = 3.0  # of one core, mostly importing torch


def plan_study(
    study: Core, shape: ModelShape | None, fetched: Mapping[str, Fetchable] = MappingProxyType({})
) -> list[StagePlan]:
    """The stages in the order of the workflow: those of the core, of each analysis that is asked
    for, and the figures and the report.

    Args:
        study: the study.
        shape: of its model; where it is not known, neither work nor the size of what depends on its
            width is.
        fetched: what is fetched instead of computed, by the key of its section.
    """
    scope = Scope(shape, fetched)
    return [*(stage(study, scope) for stage in CORE), *after_core(study, scope)]


def after_core(study: AnyStudy, scope: Scope) -> list[StagePlan]:
    """The stages of each analysis that a study of any kind asks for, and the figures and the
    report."""
    stages: list[StagePlan] = []
    for analysis, own in study.asked:
        if work := analysis.declared("cost", "work"):
            names = {"sae": list(study.saes), **analysis.names(study, own)}
            ends = [
                path for pattern in analysis.outputs(study, own) for path in filled(pattern, names)
            ]
            stages += [
                stage if stage.files else stage._replace(files=ends)
                for stage in work(study, own, scope)
            ]
    figures = figures_of(study)
    files = ["report/index.html", *(f"figures/{name}.png" for name in figures)]
    return [
        *stages,
        StagePlan("figures", 1 + len(figures), 0, 0, 5_000_000, "figures and report", files),
    ]


def _corpus(study: Core, scope: Scope) -> StagePlan:
    corpus = study.corpus
    disk = 4 * sum(dict(corpus.tokens).values())
    splits = ["model", "sae", "eval"] if _model_training(study, scope) else ["sae", "eval"]
    what = f"{corpus.kind} to blocks of {corpus.context}"
    files = [f"corpus/{split}.safetensors" for split in splits]
    return StagePlan("corpus", len(splits), 0, 0, disk, what, files)


def _model(study: Core, scope: Scope) -> StagePlan:
    training = _model_training(study, scope)
    trained, held = (
        training.epochs * study.corpus.tokens.model if training else 0,
        study.corpus.tokens.eval,
    )
    own = "comes with saeflow" if is_embedded(study, study.model) else str(study.model.path)
    if study.model.tune:
        own = f"a copy of {study.origin_of(study.model.name).name}, tuned here"
    work = scope.source("model", "trained here" if training else own)
    return StagePlan(
        "model",
        1 + len(study.all_models) + len(study.tuned_models),
        trained + held,
        (3 * trained + held) * scope.flop(),
        0,
        work,
        [f"models/{study.model.name}.metrics.json"],
    )


def _model_training(study: Core, scope: Scope) -> ModelTraining | None:
    """How the model is trained here, if it is."""
    taken = "model" in scope.fetched or is_embedded(study, study.model)
    return None if taken else study.model.train


def _activations(study: Core, scope: Scope) -> StagePlan:
    caches = sum(map(len, study.caches.values()))
    shards = 0 if "activations" in scope.fetched else study.shards
    rows = bool(shards) * study.corpus.tokens.sae
    hooks = ", ".join(study.cached_hooks)
    return StagePlan(
        "activations",
        shards * len(study.caches) + caches,
        rows * len(study.caches),
        rows * scope.flop(last=study.last_layer, logits=False) * len(study.caches),
        rows * scope.width * BYTES[study.activations.dtype] * caches,
        scope.source("activations", f"{counted(shards, 'shard')} at {hooks}"),
        [
            f"activations/{model}/{hook}/manifest.json"
            for model, hooks in study.caches.items()
            for hook in hooks
        ],
    )


def _saes(study: Core, scope: Scope) -> StagePlan:
    held = study.corpus.tokens.eval
    trained = [
        (sae.train, scope.width * len(study.sources_of(name)))
        for name, sae in study.saes.items()
        if sae.train and f"saes.{name}" not in scope.fetched
    ]
    flop = sum(
        settings.tokens * 2 * read * settings.d_sae * DENSE_PRODUCTS for settings, read in trained
    )
    return StagePlan(
        "saes",
        2 * len(study.saes) + 1,
        sum(settings.tokens for settings, _ in trained) + len(study.saes) * held,
        flop + len(study.saes) * held * 3 * scope.flop(),
        sum(8 * settings.d_sae * read for settings, read in trained),
        ", ".join(
            scope.source(
                f"saes.{name}", f"{name}: {sae.train.architecture if sae.train else 'imported'}"
            )
            for name, sae in study.saes.items()
        ),
        [f"saes/{name}/metrics.json" for name in study.saes],
    )


CORE: tuple[Callable[[Core, Scope], StagePlan], ...] = (_corpus, _model, _activations, _saes)
"""In the order of the workflow."""


def total(stages: list[StagePlan]) -> StagePlan:
    """All stages as one."""
    jobs, tokens, flop, disk = (
        sum(getattr(stage, name) for stage in stages) for name in StagePlan._fields[1:5]
    )
    return StagePlan("total", jobs, tokens, flop, disk, "")


def hours(stage: StagePlan, products_per_second: float, share: float, cores: int) -> float:
    """How long a stage takes on one machine.

    Args:
        stage: its work.
        products_per_second: operations per second of the machine's matrix products.
        share: of the time that goes into them.
        cores: jobs that start side by side.
    """
    return (
        stage.flop / (products_per_second * share) + stage.jobs * SECONDS_PER_JOB / cores
    ) / 3600


def needs(study: Core, root: Path) -> list[Need]:
    """What the study reads from outside, and whether it is there.

    Args:
        study: the study.
        root: the folder that ``results/`` lies in.
    """
    outside = [
        Need("corpus.path", str(text), text.exists(), CORPUS)
        for text in map(shipped_or_own, study.corpus.paths)
    ]
    written = root / location(study, CORPUS, lambda file: (root / file).exists())
    if all(need.present for need in outside) and not written.exists():
        _look_at_text(study)
    for name, model in study.all_models.items():
        if model.path:
            file = Path(model.path) if is_gguf(model.path) else Path(model.path) / "config.json"
            key = f"{study.key_of(name)}.path"
            outside.append(Need(key, str(file), file.is_file(), f"models/{name}"))
        if model.tune:
            pairs, key = shipped_or_own(model.tune.path), f"{study.key_of(name)}.tune.path"
            outside.append(Need(key, str(pairs), pairs.is_file(), f"models/{name}"))
            if pairs.is_file():
                read_pairs(pairs)
    for key, published in fetches(study, root).items():
        outside.append(Need(key, f"{published.where} {published.file or ''}".strip(), None))
    outside += [
        Need(f"saes.{name}.path", sae.path, Path(sae.path).exists(), f"saes/{name}/{SAE_FILES[1]}")
        for name, sae in study.saes.items()
        if sae.path
    ]
    _look_at_saes(study)
    return [*outside, *needs_of_saes(study), *needs_of_analyses(study)]


def _look_at_saes(study: Core) -> None:
    """Raise what the job that imports an SAE would tell of the places that it was trained at, as
    far as its config and its folder's name tell them."""
    for name, sae in study.saes.items():
        if not sae.path or sae.kind == "crosscoder":
            continue
        said = places_of(Path(sae.path), sae.format)
        for names, does, key, hook in (
            (READ, "reads", "hook", study.hook_of(name)),
            (WRITTEN, "writes", "target", sae.target),
        ):
            if hook and (elsewhere := said_elsewhere(said, names, hook)):
                raise SaeflowError(
                    f"saes.{name}.path: {sae.path} {does} {elsewhere}, not {hook}; correct its "
                    f"{key} (saes.{name}.{key})"
                )


def _look_at_text(study: Core) -> None:
    """Raise what the job that reads the text would tell of its files, as far as the first records
    tell it."""
    from saeflow.corpora.text import contents

    corpus = study.corpus
    if not corpus.path:
        return
    places = [str(shipped_or_own(path)) for path in corpus.paths]
    for file, content in contents(corpus.model_copy(update={"path": places})):
        if content.key == "messages" and (reason := why_no_messages(study.model)):
            raise SaeflowError(f"corpus.path: {file} holds chats, and {reason}")


def needs_of_saes(study: AnyStudy) -> list[Need]:
    """SAEs from outside whose weights trainings begin with."""
    begun = {name: sae.train.init_from for name, sae in study.saes.items() if sae.train}
    return [
        Need(f"saes.{name}.train.init_from", path, shipped_or_own(path).exists(), made)
        for name, path in begun.items()
        for made in [f"saes/{name}/{SAE_FILES[1]}"]
        if path and path not in study.saes
    ]


def needs_of_analyses(study: AnyStudy) -> list[Need]:
    """What the analyses read from outside that a study of any kind asks for."""
    return [
        need
        for analysis, own in study.asked
        if (its := analysis.declared("cost", "needs"))
        for need in its(study, own)
    ]


def heading(study: AnyStudy, *core: str) -> str:
    """What a study is: its name, what its core is about, and its analyses."""
    asked = ", ".join(analysis.key for analysis, _ in study.asked) or "SAEs alone"
    return f"study {study.study}: {', '.join(core)}; {asked}"


def remarks(study: AnyStudy) -> list[str]:
    """What else is to be known before the study is run, such as the price of its judge."""
    return [
        remark
        for analysis, own in study.asked
        if (its := analysis.declared("cost", "remarks"))
        for remark in its(study, own)
    ]
