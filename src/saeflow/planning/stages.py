"""What a study would run, stage by stage, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from saeflow.config.counts import block_count, latent_count, shard_count, vector_count
from saeflow.config.sections import Study
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


def plan_study(study: Study, shape: ModelShape | None) -> list[StagePlan]:
    """The stages in the order of the workflow.

    Args:
        study: the study.
        shape: of its model; where it is not known, neither work nor the size of what depends on its width is.
    """
    corpus, effects, steering = study.corpus, study.effects, study.steering
    width = shape.d_model if shape else 0
    d_sae = latent_count(study, study.steering_sae)
    vectors, cells = vector_count(study), len(study.goals.names) * len(steering.methods)
    rollouts = len(effects.prompts) * effects.samples
    completions = len(steering.scales) * len(steering.prompts) * steering.samples
    trained = [sae.train for sae in study.saes.values() if sae.train]
    rows, held = corpus.tokens.sae, corpus.tokens.eval
    work = _Work(study, shape)
    trained_here = study.model.train.epochs * corpus.tokens.model if study.model.train else 0
    steered = vectors * rollouts * effects.new_tokens
    searched = vectors * round(LOSSES_PER_SEARCH * effects.scale.tokens)
    baseline = len(effects.prompts) * effects.baseline_samples * effects.new_tokens
    completed = cells * completions * steering.new_tokens
    side = cells * rollouts * effects.new_tokens
    judged = completed if study.judge.kind == "lexical" else 0
    return [
        StagePlan(
            "corpus",
            3 if study.model.train else 2,
            0,
            0,
            4 * sum(dict(corpus.tokens).values()),
            f"{corpus.kind} to blocks of {corpus.context}",
        ),
        StagePlan(
            "model",
            2,
            trained_here + held,
            (3 * trained_here + held) * work.whole,
            0,
            "trained here" if study.model.train else study.model.path or str(study.model.repo),
        ),
        StagePlan(
            "activations",
            shard_count(study) + len(study.hooks),
            rows,
            rows * work.cached,
            rows * width * BYTES[study.activations.dtype] * len(study.hooks),
            f"{shard_count(study)} shards at {', '.join(study.hooks)}",
        ),
        StagePlan(
            "saes",
            2 * len(study.saes),
            sum(settings.tokens for settings in trained) + len(study.saes) * held,
            sum(settings.tokens * 2 * width * settings.d_sae * DENSE_PRODUCTS for settings in trained)
            + len(study.saes) * held * 3 * work.whole,
            sum(8 * settings.d_sae * width for settings in trained),
            ", ".join(
                f"{name}: {sae.train.architecture if sae.train else 'imported'}" for name, sae in study.saes.items()
            ),
        ),
        StagePlan(
            "effects",
            block_count(study) + 2,
            steered + searched + baseline,
            (steered + baseline) * (work.whole + 2 * width * d_sae) + searched * work.above,
            vectors * ((4 + BYTES[effects.dtype]) * d_sae + 8 * width),
            f"{vectors} vectors × {rollouts} rollouts × {effects.new_tokens} tokens",
        ),
        StagePlan(
            "approximator",
            1,
            0,
            2 * vectors * width * (width + d_sae),
            4 * width * (d_sae + width),
            f"{study.approximator.method}, {width} × {d_sae}" if width else study.approximator.method,
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
        StagePlan("figures", 14, 0, 0, 5_000_000, "figures and report"),
    ]


class _Work:
    """Operations per token of parts of the model; 0 where its shape is not known."""

    def __init__(self, study: Study, shape: ModelShape | None) -> None:
        self.whole = shape.flop() if shape else 0
        self.cached = shape.flop(last=study.last_layer, logits=False) if shape else 0
        self.above = shape.flop(first=study.layer + 1) if shape else 0


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
    if study.model.repo:
        found.append(Need("model", f"{study.model.repo}@{study.model.revision} on the hub", None))
    found += [Need(f"SAE {name}", sae.path, Path(sae.path).is_dir()) for name, sae in study.saes.items() if sae.path]
    if study.effects.vectors.path:
        file = study.effects.vectors.path
        found.append(Need("vectors to measure", file, Path(file).is_file()))
    files = {goal: Path(root, study.goals.directory, f"{goal}.yaml") for goal in study.goals.names}
    found += [Need(f"goal {goal}", str(file), file.is_file()) for goal, file in files.items()]
    return found
