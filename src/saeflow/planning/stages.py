"""What a study would run, stage by stage, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from saeflow.config.counts import block_count, latent_count, shard_count, vector_count
from saeflow.config.sections import Study

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
SCALE_EVALUATIONS_BEFORE_BISECTION = 6  # doublings of the bracket, at most


class StagePlan(NamedTuple):
    """The work of one stage."""

    stage: str
    jobs: int
    """Jobs of the workflow."""
    tokens: int
    """Tokens that pass through the model, or activations through an SAE that is trained."""
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


def model_width(study: Study) -> int | None:
    """d_model, from the settings of a model trained here or the config.json of a local checkpoint; else None."""
    if study.model.train:
        return study.model.train.d_model
    if study.model.path and (file := Path(study.model.path, "config.json")).is_file():
        values = json.loads(file.read_text())
        return values.get("hidden_size") or values.get("n_embd")
    return None


def plan_study(study: Study) -> list[StagePlan]:
    """The stages in the order of the workflow."""
    corpus, effects, steering = study.corpus, study.effects, study.steering
    width = model_width(study) or 0
    d_sae = latent_count(study, study.steering_sae)
    vectors, cells = vector_count(study), len(study.goals.names) * len(steering.methods)
    rollouts = len(effects.prompts) * effects.samples
    evaluations = effects.scale.steps + SCALE_EVALUATIONS_BEFORE_BISECTION
    completions = len(steering.scales) * len(steering.prompts) * steering.samples
    trained = [sae.train for sae in study.saes.values() if sae.train]
    rows = corpus.tokens.sae
    return [
        StagePlan(
            "corpus",
            3 if study.model.train else 2,
            0,
            4 * sum(dict(corpus.tokens).values()),
            f"{corpus.kind} to blocks of {corpus.context}",
        ),
        StagePlan(
            "model",
            2,
            (study.model.train.epochs * corpus.tokens.model if study.model.train else 0) + corpus.tokens.eval,
            0,
            "trained here" if study.model.train else study.model.path or str(study.model.repo),
        ),
        StagePlan(
            "activations",
            shard_count(study) + len(study.hooks),
            rows,
            rows * width * BYTES[study.activations.dtype] * len(study.hooks),
            f"{shard_count(study)} shards at {', '.join(study.hooks)}",
        ),
        StagePlan(
            "saes",
            2 * len(study.saes),
            sum(settings.tokens for settings in trained),
            sum(8 * settings.d_sae * width for settings in trained),
            ", ".join(
                f"{name}: {sae.train.architecture if sae.train else 'imported'}" for name, sae in study.saes.items()
            ),
        ),
        StagePlan(
            "effects",
            block_count(study) + 2,
            vectors * (rollouts * effects.new_tokens + evaluations * effects.scale.tokens)
            + len(effects.prompts) * effects.baseline_samples * effects.new_tokens,
            vectors * ((4 + BYTES[effects.dtype]) * d_sae + 8 * width),
            f"{vectors} vectors × {rollouts} rollouts × {effects.new_tokens} tokens",
        ),
        StagePlan("approximator", 1, 0, 4 * width * (d_sae + width), f"{study.approximator.method}, {width} × {d_sae}"),
        StagePlan(
            "steering",
            3 * len(study.goals.names) + cells,
            cells * completions * steering.new_tokens,
            cells * completions * 6 * steering.new_tokens,
            f"{cells} goals × methods × {completions} completions",
        ),
        StagePlan(
            "judging",
            cells + 1,
            0,
            cells * completions * 40,
            f"{2 * cells * completions} scores by '{study.judge.kind}'",
        ),
        StagePlan("figures", 12, 0, 5_000_000, "figures and report"),
    ]


def total(stages: list[StagePlan]) -> StagePlan:
    """All stages as one."""
    jobs, tokens, disk = (sum(getattr(stage, name) for stage in stages) for name in ("jobs", "tokens", "disk"))
    return StagePlan("total", jobs, tokens, disk, "")


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
