"""What a study would run, stage by stage, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from saeflow.config.counts import block_count, latent_count, vector_count
from saeflow.config.locations import fetches, goal_file
from saeflow.config.sections import ModelTraining, Published, Study
from saeflow.planning.shape import ModelShape

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LOSSES_PER_SEARCH = 2.3  # measured; the first look, on a part of the text, is counted as its share
# of an SAE's training step, in encoder products: 1.2 where it is sparse, up to 6 where it is not
DENSE_PRODUCTS = 2
SECONDS_PER_JOB = 3.0  # of one core, mostly importing torch


class StagePlan(NamedTuple):
    """The work of one stage."""

    stage: str
    jobs: int
    """Jobs of the workflow."""
    tokens: int
    """Tokens that pass through the model, or activations through an SAE that is trained."""
    flop: int
    """Operations of the matrix products in it; 0 where the model is not on this machine yet."""
    disk: int
    """Bytes of the stage's results, roughly."""
    work: str
    """What is done, in words."""


class Need(NamedTuple):
    """Something from outside that the study reads."""

    what: str
    where: str
    present: bool | None
    """None where it lies on the hub and is looked for when it is fetched."""


def plan_study(
    study: Study, shape: ModelShape | None, fetched: Mapping[str, Published] = MappingProxyType({})
) -> list[StagePlan]:
    """The stages in the order of the workflow.

    Args:
        study: the study.
        shape: of its model; where it is not known, neither work nor the size of what depends on its
            width is.
        fetched: what is fetched instead of computed, by the key of its section.
    """
    asked = _Asked(study, shape, fetched)
    return [stage(asked) for stage in STAGES]


class _Asked:
    """What a study asks for, in numbers that several stages share.

    Args:
        study: the study.
        shape: of its model, or None.
        fetched: what is fetched instead of computed, by the key of its section.
    """

    def __init__(
        self, study: Study, shape: ModelShape | None, fetched: Mapping[str, Published]
    ) -> None:
        self.study, self.fetched = study, fetched
        self.width = shape.d_model if shape else 0
        self.cells = len(study.goals.names) * len(study.steering.methods)
        self.rollouts = len(study.effects.prompts) * study.effects.samples
        self.completions = (
            len(study.steering.scales) * len(study.steering.prompts) * study.steering.samples
        )
        self.completed = self.cells * self.completions * study.steering.new_tokens
        self.vectors = 0 if "effects" in fetched else vector_count(study)
        self.d_sae = self._d_sae()
        # Operations per token of parts of the model; 0 where its shape is not known.
        self.whole = shape.flop() if shape else 0
        self.cached = shape.flop(last=study.last_layer, logits=False) if shape else 0
        self.above = shape.flop(first=study.layer + 1) if shape else 0
        self.unembedding = shape.d_model * shape.d_vocab if shape else 0

    @property
    def in_sae(self) -> int:
        """Operations per token of a steered pass whose latents are read."""
        return self.whole + 2 * self.width * self.d_sae

    def come_from(self, key: str, computed: str) -> str:
        """What is done for a section: how it is computed, or that it is fetched, and where from."""
        if not (published := self.fetched.get(key)):
            return computed
        return f"fetched: {' '.join(filter(None, [published.where, published.file]))}"

    def _d_sae(self) -> int:
        """Latents of the SAE that is steered with."""
        declared = self.study.saes[self.study.steering_sae].declared_width
        if declared is not None:
            return declared
        return 0 if "effects" in self.fetched else latent_count(self.study, self.study.steering_sae)


def _corpus(asked: _Asked) -> StagePlan:
    corpus = asked.study.corpus
    disk = 4 * sum(dict(corpus.tokens).values())
    jobs = 3 if _model_training(asked) else 2
    return StagePlan("corpus", jobs, 0, 0, disk, f"{corpus.kind} to blocks of {corpus.context}")


def _model(asked: _Asked) -> StagePlan:
    study, training = asked.study, _model_training(asked)
    trained, held = (
        training.epochs * study.corpus.tokens.model if training else 0,
        study.corpus.tokens.eval,
    )
    work = asked.come_from("model", "trained here" if training else str(study.model.path))
    return StagePlan(
        "model",
        1 + len(study.all_models),
        trained + held,
        (3 * trained + held) * asked.whole,
        0,
        work,
    )


def _model_training(asked: _Asked) -> ModelTraining | None:
    """How the model is trained here, if it is."""
    return None if "model" in asked.fetched else asked.study.model.train


def _activations(asked: _Asked) -> StagePlan:
    study = asked.study
    caches = sum(map(len, study.caches.values()))
    shards = 0 if "activations" in asked.fetched else study.shards
    rows = bool(shards) * study.corpus.tokens.sae
    return StagePlan(
        "activations",
        shards * len(study.caches) + caches,
        rows * len(study.caches),
        rows * asked.cached * len(study.caches),
        rows * asked.width * BYTES[study.activations.dtype] * caches,
        asked.come_from("activations", f"{shards} shards at {', '.join(study.hooks)}"),
    )


def _saes(asked: _Asked) -> StagePlan:
    study, held = asked.study, asked.study.corpus.tokens.eval
    trained = [
        (sae.train, asked.width * len(study.sources_of(name)))
        for name, sae in study.saes.items()
        if sae.train and f"saes.{name}" not in asked.fetched
    ]
    flop = sum(
        settings.tokens * 2 * read * settings.d_sae * DENSE_PRODUCTS for settings, read in trained
    )
    return StagePlan(
        "saes",
        2 * len(study.saes),
        sum(settings.tokens for settings, _ in trained) + len(study.saes) * held,
        flop + len(study.saes) * held * 3 * asked.whole,
        sum(8 * settings.d_sae * read for settings, read in trained),
        ", ".join(
            asked.come_from(
                f"saes.{name}", f"{name}: {sae.train.architecture if sae.train else 'imported'}"
            )
            for name, sae in study.saes.items()
        ),
    )


def _latents(asked: _Asked) -> StagePlan:
    study, tokens = asked.study, asked.study.corpus.tokens.sae
    widths = [study.saes[name].declared_width or 0 for name in study.example_saes]
    read = sum(widths) * 2 * asked.width * tokens
    directions = study.logit_lens.directions if study.logit_lens else 0
    seen = (
        bool(study.logit_lens) * sum(width + directions for width in widths) * 2 * asked.unembedding
    )
    return StagePlan(
        "latents",
        len(study.example_saes) + 2 * len(study.lens_saes) + bool(study.lens_saes),
        len(study.example_saes) * tokens,
        read + seen,
        6000 * sum(widths),
        f"{len(study.example_saes)} SAEs' examples, {len(study.lens_saes)} logit lenses",
    )


def _effects(asked: _Asked) -> StagePlan:
    study, effects, vectors = asked.study, asked.study.effects, asked.vectors
    steered = vectors * asked.rollouts * effects.new_tokens
    searched = vectors * round(LOSSES_PER_SEARCH * effects.scale.tokens)
    baseline = len(effects.prompts) * effects.baseline_samples * effects.new_tokens
    measured = f"{vectors} vectors × {asked.rollouts} rollouts × {effects.new_tokens} tokens"
    return StagePlan(
        "effects",
        (0 if "effects" in asked.fetched else block_count(study)) + 2,
        steered + searched + baseline,
        (steered + baseline) * asked.in_sae + searched * asked.above,
        vectors * ((4 + BYTES[effects.dtype]) * asked.d_sae + 8 * asked.width),
        asked.come_from("effects", measured),
    )


def _approximator(asked: _Asked) -> StagePlan:
    width, d_sae, method = asked.width, asked.d_sae, asked.study.approximator.method
    is_fetched = "approximator" in asked.fetched
    return StagePlan(
        "approximator",
        2 if is_fetched else 1,
        0,
        0 if is_fetched else 2 * asked.vectors * width * (width + d_sae),
        4 * width * (d_sae + width),
        asked.come_from("approximator", f"{method}, {width} × {d_sae}" if width else method),
    )


def _steering(asked: _Asked) -> StagePlan:
    study, cells = asked.study, asked.cells
    side = cells * asked.rollouts * study.effects.new_tokens
    return StagePlan(
        "steering",
        1 + 2 * len(study.goals.names) + cells,
        asked.completed + side,
        asked.completed * asked.whole + side * asked.in_sae,
        cells * asked.completions * 6 * study.steering.new_tokens,
        f"{cells} goals × methods × {asked.completions} completions",
    )


def _judging(asked: _Asked) -> StagePlan:
    study, texts = asked.study, asked.cells * asked.completions
    judged = asked.completed if study.judge.kind == "lexical" else 0
    return StagePlan(
        "judging",
        asked.cells + len(study.goals.names) + 1,
        judged,
        judged * asked.whole,
        texts * 40,
        f"{judge_calls(study) or 2 * texts} scores by '{study.judge.kind}'",
    )


def _figures(asked: _Asked) -> StagePlan:
    return StagePlan(
        "figures", 19 if asked.study.logit_lens else 14, 0, 0, 5_000_000, "figures and report"
    )


STAGES: tuple[Callable[[_Asked], StagePlan], ...] = (
    _corpus,
    _model,
    _activations,
    _saes,
    _latents,
    _effects,
    _approximator,
    _steering,
    _judging,
    _figures,
)
"""In the order of the workflow."""


def judge_calls(study: Study) -> int:
    """Calls that the judge makes at most, if nothing is in the ledger yet; 0 for a judge that makes
    none."""
    if study.judge.kind != "openai":
        return 0
    steering = study.steering
    cells = len(study.goals.names) * len(steering.methods)
    completions = len(steering.scales) * len(steering.prompts) * steering.samples
    criteria = 2 + 3 * ("three_way" in study.judge.protocols)
    pairs = (
        len(study.goals.names)
        * len(steering.methods)
        * (len(steering.methods) - 1)
        // 2
        * study.judge.pairs
        * 2
    )
    return (cells * completions * criteria + 2 * pairs) * study.judge.repeats


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


def needs(study: Study, root: Path) -> list[Need]:
    """What the study reads from outside, and whether it is there.

    Args:
        study: the study.
        root: the folder that ``results/`` lies in.
    """
    found = []
    if study.corpus.path:
        found.append(Need("corpus", study.corpus.path, Path(study.corpus.path).exists()))
    if study.model.path:
        found.append(
            Need("model", study.model.path, Path(study.model.path, "config.json").is_file())
        )
    for key, published in fetches(study, root).items():
        found.append(Need(key, f"{published.where} {published.file or ''}".strip(), None))
    found += [
        Need(f"SAE {name}", sae.path, Path(sae.path).is_dir())
        for name, sae in study.saes.items()
        if sae.path
    ]
    if study.effects.vectors.path:
        file = study.effects.vectors.path
        found.append(Need("vectors to measure", file, Path(file).is_file()))
    files = {goal: goal_file(study, goal) for goal in study.goals.names}
    found += [Need(f"goal {goal}", str(file), file.is_file()) for goal, file in files.items()]
    return found
