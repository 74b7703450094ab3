"""What a study would run, stage by stage, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from saeflow.config.counts import block_count, latent_count, shard_count, vector_count
from saeflow.config.locations import fetches
from saeflow.config.sections import Published, Study
from saeflow.planning.shape import ModelShape

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LOSSES_PER_SEARCH = 2.3  # measured; the first look, on a part of the text, is counted as its share
DENSE_PRODUCTS = 2  # of an SAE's training step, in encoder products: 1.2 where it is sparse, up to 6 where it is not
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
        shape: of its model; where it is not known, neither work nor the size of what depends on its width is.
        fetched: what is fetched instead of computed, by the key of its section.
    """
    corpus, effects, steering = study.corpus, study.effects, study.steering
    width = shape.d_model if shape else 0
    d_sae = study.saes[study.steering_sae].declared_width
    if d_sae is None:
        d_sae = 0 if "effects" in fetched else latent_count(study, study.steering_sae)
    blocks, vectors = (0, 0) if "effects" in fetched else (block_count(study), vector_count(study))
    cells = len(study.goals.names) * len(steering.methods)
    rollouts = len(effects.prompts) * effects.samples
    completions = len(steering.scales) * len(steering.prompts) * steering.samples
    caches = sum(map(len, study.caches.values()))
    trained = [
        (sae.train, width * len(study.sources_of(name)))
        for name, sae in study.saes.items()
        if sae.train and f"saes.{name}" not in fetched
    ]
    shards = 0 if "activations" in fetched else shard_count(study)
    rows, held = bool(shards) * corpus.tokens.sae, corpus.tokens.eval
    latents = [study.saes[name].declared_width or 0 for name in study.example_saes]
    work = _Work(study, shape)
    training = None if "model" in fetched else study.model.train
    trained_here = training.epochs * corpus.tokens.model if training else 0
    steered = vectors * rollouts * effects.new_tokens
    searched = vectors * round(LOSSES_PER_SEARCH * effects.scale.tokens)
    baseline = len(effects.prompts) * effects.baseline_samples * effects.new_tokens
    completed = cells * completions * steering.new_tokens
    side = cells * rollouts * effects.new_tokens
    judged = completed if study.judge.kind == "lexical" else 0
    return [
        StagePlan(
            "corpus",
            3 if training else 2,
            0,
            0,
            4 * sum(dict(corpus.tokens).values()),
            f"{corpus.kind} to blocks of {corpus.context}",
        ),
        StagePlan(
            "model",
            1 + len(study.all_models),
            trained_here + held,
            (3 * trained_here + held) * work.whole,
            0,
            _come_from(fetched, "model", "trained here" if training else str(study.model.path)),
        ),
        StagePlan(
            "activations",
            shards * len(study.caches) + caches,
            rows * len(study.caches),
            rows * work.cached * len(study.caches),
            rows * width * BYTES[study.activations.dtype] * caches,
            _come_from(fetched, "activations", f"{shards} shards at {', '.join(study.hooks)}"),
        ),
        StagePlan(
            "saes",
            2 * len(study.saes),
            sum(settings.tokens for settings, _ in trained) + len(study.saes) * held,
            sum(settings.tokens * 2 * read * settings.d_sae * DENSE_PRODUCTS for settings, read in trained)
            + len(study.saes) * held * 3 * work.whole,
            sum(8 * settings.d_sae * read for settings, read in trained),
            ", ".join(
                _come_from(fetched, f"saes.{name}", f"{name}: {sae.train.architecture if sae.train else 'imported'}")
                for name, sae in study.saes.items()
            ),
        ),
        StagePlan(
            "latents",
            len(study.example_saes) + 2 * len(study.lens_saes) + bool(study.lens_saes),
            len(study.example_saes) * corpus.tokens.sae,
            sum(map(work.latents, latents)),
            6000 * sum(latents),
            f"{len(study.example_saes)} SAEs' examples, {len(study.lens_saes)} logit lenses",
        ),
        StagePlan(
            "effects",
            blocks + 2,
            steered + searched + baseline,
            (steered + baseline) * (work.whole + 2 * width * d_sae) + searched * work.above,
            vectors * ((4 + BYTES[effects.dtype]) * d_sae + 8 * width),
            _come_from(fetched, "effects", f"{vectors} vectors × {rollouts} rollouts × {effects.new_tokens} tokens"),
        ),
        StagePlan(
            "approximator",
            2 if "approximator" in fetched else 1,
            0,
            0 if "approximator" in fetched else 2 * vectors * width * (width + d_sae),
            4 * width * (d_sae + width),
            _come_from(
                fetched,
                "approximator",
                f"{study.approximator.method}, {width} × {d_sae}" if width else study.approximator.method,
            ),
        ),
        StagePlan(
            "steering",
            3 * len(study.goals.names) + cells,
            completed + side,
            completed * work.whole + side * (work.whole + 2 * width * d_sae),
            cells * completions * 6 * steering.new_tokens,
            f"{cells} goals × methods × {completions} completions",
        ),
        StagePlan(
            "judging",
            cells + len(study.goals.names) + 1,
            judged,
            judged * work.whole,
            cells * completions * 40,
            f"{judge_calls(study) or 2 * cells * completions} scores by '{study.judge.kind}'",
        ),
        StagePlan("figures", 19 if study.logit_lens else 14, 0, 0, 5_000_000, "figures and report"),
    ]


def _come_from(fetched: Mapping[str, Published], key: str, computed: str) -> str:
    """What is done for a section: how it is computed, or that it is fetched, and where from."""
    if not (published := fetched.get(key)):
        return computed
    return f"fetched: {' '.join(filter(None, [published.where, published.file]))}"


class _Work:
    """Operations per token of parts of the model; 0 where its shape is not known."""

    def __init__(self, study: Study, shape: ModelShape | None) -> None:
        self.whole = shape.flop() if shape else 0
        self.cached = shape.flop(last=study.last_layer, logits=False) if shape else 0
        self.above = shape.flop(first=study.layer + 1) if shape else 0
        self._read = 2 * shape.d_model * study.corpus.tokens.sae if shape else 0
        self._seen = 2 * shape.d_model * shape.d_vocab if shape and study.logit_lens else 0
        self._directions = study.logit_lens.directions if study.logit_lens else 0

    def latents(self, d_sae: int) -> int:
        """Of the analyses of one SAE's latents, in all."""
        return d_sae * self._read + (d_sae + self._directions) * self._seen


def judge_calls(study: Study) -> int:
    """Calls that the judge makes at most, if nothing is in the ledger yet; 0 for a judge that makes none."""
    if study.judge.kind != "openai":
        return 0
    steering = study.steering
    cells = len(study.goals.names) * len(steering.methods)
    completions = len(steering.scales) * len(steering.prompts) * steering.samples
    criteria = 2 + 3 * ("three_way" in study.judge.protocols)
    pairs = len(study.goals.names) * len(steering.methods) * (len(steering.methods) - 1) // 2 * study.judge.pairs * 2
    return (cells * completions * criteria + 2 * pairs) * study.judge.repeats


def total(stages: list[StagePlan]) -> StagePlan:
    """All stages as one."""
    jobs, tokens, flop, disk = (sum(getattr(stage, name) for stage in stages) for name in StagePlan._fields[1:5])
    return StagePlan("total", jobs, tokens, flop, disk, "")


def hours(stage: StagePlan, products_per_second: float, share: float, cores: int) -> float:
    """How long a stage takes on one machine.

    Args:
        stage: its work.
        products_per_second: operations per second of the machine's matrix products.
        share: of the time that goes into them.
        cores: jobs that start side by side.
    """
    return (stage.flop / (products_per_second * share) + stage.jobs * SECONDS_PER_JOB / cores) / 3600


def needs(study: Study, root: Path) -> list[Need]:
    """What the study reads from outside, and whether it is there.

    Args:
        study: the study.
        root: the repository, to which the goals' directory is relative.
    """
    found = []
    if study.corpus.path:
        found.append(Need("corpus", study.corpus.path, Path(study.corpus.path).exists()))
    if study.model.path:
        found.append(Need("model", study.model.path, Path(study.model.path, "config.json").is_file()))
    for key, published in fetches(study, root).items():
        found.append(Need(key, f"{published.where} {published.file or ''}".strip(), None))
    found += [Need(f"SAE {name}", sae.path, Path(sae.path).is_dir()) for name, sae in study.saes.items() if sae.path]
    if study.effects.vectors.path:
        file = study.effects.vectors.path
        found.append(Need("vectors to measure", file, Path(file).is_file()))
    files = {goal: Path(root, study.goals.directory, f"{goal}.yaml") for goal in study.goals.names}
    found += [Need(f"goal {goal}", str(file), file.is_file()) for goal, file in files.items()]
    return found
