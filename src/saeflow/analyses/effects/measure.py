"""What steering vectors do to the mean activation of every latent (arXiv 2411.02193, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from saeflow.analyses.effects.memory import FEWEST, rows_that_fit
from saeflow.analyses.effects.scale import (
    STATUSES,
    Evaluation,
    LossAt,
    PartLosses,
    ScaleSearch,
    Start,
    find_scales,
    find_start,
    loss_of,
    part_of,
    prepare_evaluation,
)
from saeflow.decoding.edits import check_vectors
from saeflow.decoding.generation import BufferCache, Memory
from saeflow.decoding.recording import Recording
from saeflow.decoding.rollouts import Plan, PromptGroup, Rollouts, Steered, prompt_groups, roll_out
from saeflow.errors import SaeflowError
from saeflow.models.exhaustion import halve_batch_on_oom
from saeflow.saes.subject import Subject
from saeflow.seeds import torch_generator

if TYPE_CHECKING:
    from saeflow.analyses.effects.settings import Measurement
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

T = TypeVar("T")

# numbers; what stays in a CPU's cache, what fills a GPU
LATENTS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 26}
PURPOSE = "effects"
PILOTS = 8  # random directions whose scales tell where searches start


@dataclass(frozen=True)
class Experiment:
    """Everything that is the same for all vectors of a study."""

    subject: Subject
    settings: Measurement
    mean_norm: float
    """Of the activations at the hook."""
    evaluation: Evaluation
    evaluation_part: Evaluation
    """The part of the evaluation text on which every vector is measured first."""
    groups: list[PromptGroup]
    batch_rows: int
    recorded: bool = False
    """Whether decode steps are recorded as CUDA graphs and replayed."""

    @property
    def scale_search(self) -> ScaleSearch:
        """What every vector's scale is sought for."""
        return ScaleSearch(self.evaluation.loss, self.settings.scale, self.mean_norm)

    def plan(self, samples: int) -> Plan:
        """How rollouts are drawn; baseline and vectors share their noise."""
        return Plan(
            samples=samples,
            new_tokens=self.settings.new_tokens,
            sampling=self.settings.sampling,
            seed=self.subject.seed,
            purpose=PURPOSE,
            batch_rows=self.batch_rows,
            read=self.settings.positions,
        )


class Baseline(NamedTuple):
    """Mean activations of the unsteered model's own text."""

    mean: Float[Tensor, " d_sae"]
    """float64."""
    standard_error: Float[Tensor, " d_sae"]
    """Of the mean, over rollouts; float64."""
    rollouts: int
    loss: float
    """Of the unsteered model on the evaluation text, in nats per token."""
    start: Start | None
    """Where searches for scales begin, told by a few random directions."""
    batch_rows: int
    """Rows of its decode batches; blocks take as many, so that all are made by the same kernels."""


class EffectBlock(NamedTuple):
    """Effects of some vectors; row by row."""

    vectors: Float[Tensor, "n d_model"]
    """Unit norm, float32."""
    effects: Float[Tensor, "n d_sae"]
    """Mean activation under steering minus the baseline's; float32."""
    standard_error: Float[Tensor, "n d_sae"]
    """Of the mean under steering, over rollouts of the same prompts; float16, NaN with one rollout
    per prompt. The noise of the baseline, which all rows share, is not in it."""
    scale: NDArray[np.float64]
    """What the vector was multiplied with; see `saeflow.analyses.effects.scale.VectorScale`."""
    status: NDArray[np.uint8]
    """Index into `saeflow.analyses.effects.scale.STATUSES`."""
    vector_id: NDArray[np.int64]
    loss: NDArray[np.float64]
    """On the evaluation text at this scale."""
    rollouts: NDArray[np.int64]
    """Behind every row."""


def prepare(
    subject: Subject,
    settings: Measurement,
    evaluation_tokens: NDArray[np.int32],
    mean_norm: float,
    batch_rows: int | None = None,
) -> Experiment:
    """Check that the parts fit and run the evaluation text up to the hook.

    Args:
        subject: the model and the SAE whose latents are measured, at a ``hook_resid_post``.
        settings: of the stage.
        evaluation_tokens: ``[blocks, pos]`` of the split ``eval``.
        mean_norm: of the activations at the hook.
        batch_rows: most rows of a decode batch; None is as many as memory holds.

    Raises:
        SaeflowError: the SAE reads another width, the hook cannot be steered, or the evaluation
            text is too short.
    """
    lm, sae = subject.lm, subject.sae
    if sae.d_model != lm.d_model:
        raise SaeflowError(
            f"effects: the SAE reads width {sae.d_model} and the model is {lm.d_model} wide; take "
            "its own SAE"
        )
    evaluation = prepare_evaluation(
        lm, subject.hook, torch.from_numpy(evaluation_tokens).long(), settings.scale
    )
    groups = prompt_groups(lm, settings.prompts)
    longest = max(group.tokens.shape[1] for group in groups) + settings.new_tokens
    return Experiment(
        subject=replace(subject, sae=sae.to(lm.device)),
        settings=settings,
        mean_norm=mean_norm,
        evaluation=evaluation,
        evaluation_part=part_of(lm, evaluation),
        groups=groups,
        batch_rows=batch_rows or rows_that_fit(lm, longest),
    )


def measure_in_batches_that_fit(
    experiment: Experiment, measure: Callable[[Experiment], T]
) -> tuple[T, Experiment]:
    """Measure, with half the rows each time that memory runs out.

    Args:
        experiment: whose batches may be too large.
        measure: what to do with it; done anew after a failure.

    Returns:
        What was measured, and the experiment that did fit, to go on with.

    Raises:
        SaeflowError: not even the smallest batch fits.
    """
    complaint = (
        "effects: memory runs out with {size} rollouts side by side; lower new_tokens, take a "
        "narrower dtype, or free the device"
    )

    def with_rows(rows: int) -> T:
        return measure(replace(experiment, batch_rows=rows))

    measured, rows = halve_batch_on_oom(experiment.batch_rows, with_rows, FEWEST, complaint)
    return measured, replace(experiment, batch_rows=rows)


@torch.no_grad()
def measure_baseline(
    experiment: Experiment, progress: Callable[[int, int], None] | None = None
) -> Baseline:
    """Mean activation of every latent over unsteered rollouts; one baseline serves the whole
    study."""
    subject, plan = experiment.subject, experiment.plan(experiment.settings.baseline_samples)
    lm = subject.lm
    unsteered = Steered(torch.zeros((1, lm.d_model)), torch.zeros(1), [0])
    total = torch.zeros(subject.sae.d_sae, dtype=torch.float64, device=lm.device)
    squares, count = torch.zeros_like(total), 0
    for group in experiment.groups:
        for rollouts in roll_out(lm, subject.hook, group, unsteered, plan):
            assert rollouts.resid is not None
            for _, means in mean_latents(
                subject.sae, rollouts.resid.flatten(0, 1), positions_read(lm, rollouts)
            ):
                total += means.sum(0)
                squares += means.square().sum(0)
                count += len(means)
            if progress:
                progress(count, plan.samples * len(experiment.settings.prompts))
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0) * count / (count - 1)
    losses, part = losses_of(experiment, _pilots(experiment))
    start = find_start(losses, PILOTS, experiment.scale_search, part)
    return Baseline(
        mean=mean.cpu(),
        standard_error=(variance / count).sqrt().cpu(),
        rollouts=count,
        loss=experiment.evaluation.loss,
        start=start,
        batch_rows=experiment.batch_rows,
    )


@torch.no_grad()
def measure_block(
    experiment: Experiment,
    vectors: Float[Tensor, "n d_model"],
    vector_ids: Sequence[int],
    baseline: Baseline,
    progress: Callable[[int, int], None] | None = None,
) -> EffectBlock:
    """Find the scale of every vector, let it steer, and compare mean activations with the
    baseline's.

    The result of a vector depends on its id and the experiment, not on the other vectors.

    Args:
        experiment: what all vectors share.
        vectors: of any norm; they are brought to unit norm. One of zeros steers nothing: its scale
            and its effects are zero, without a rollout.
        vector_ids: consecutive numbers make best use of batches.
        baseline: of the same experiment.
        progress: called with (scales found and means measured, twice the number of vectors).

    Raises:
        SaeflowError: no vectors, or one that is not finite or of the wrong width.
    """
    vectors = unit_vectors(vectors, experiment.subject.lm.d_model)
    steers = vectors.any(dim=1)
    if not steers.all():
        return _beside_zeros(experiment, vectors, steers, vector_ids, baseline, progress)
    losses, part = losses_of(experiment, vectors)
    n, beat = len(vectors), progress or (lambda done, total: None)
    searched = find_scales(
        losses, n, experiment.scale_search, baseline.start, part, lambda done, _: beat(done, 2 * n)
    )
    scales = np.array([result.scale for result in searched])
    means, errors = _steered_means(
        experiment, vectors, scales, vector_ids, lambda done, of: beat(n + n * done // of, 2 * n)
    )
    rollouts = experiment.settings.samples * len(experiment.settings.prompts)
    return EffectBlock(
        vectors=vectors.cpu(),
        effects=(means - baseline.mean.to(means.device)).float().cpu(),
        standard_error=errors.half().cpu(),
        scale=scales,
        status=np.array([STATUSES.index(result.status) for result in searched], dtype=np.uint8),
        vector_id=np.array(vector_ids, dtype=np.int64),
        loss=np.array([result.loss for result in searched]),
        rollouts=np.full(len(vectors), rollouts, dtype=np.int64),
    )


def _beside_zeros(
    experiment: Experiment,
    vectors: Float[Tensor, "n d_model"],
    steers: Bool[Tensor, " n"],
    vector_ids: Sequence[int],
    baseline: Baseline,
    progress: Callable[[int, int], None] | None,
) -> EffectBlock:
    """The block of vectors of which some are zero: the others are measured, as without them."""
    n, rows = len(vectors), steers.nonzero()[:, 0].tolist()
    d_sae = experiment.subject.sae.d_sae
    block = EffectBlock(
        vectors=vectors.cpu(),
        effects=torch.zeros((n, d_sae)),
        standard_error=torch.zeros((n, d_sae), dtype=torch.float16),
        scale=np.zeros(n),
        status=np.full(n, STATUSES.index("zero_vector"), dtype=np.uint8),
        vector_id=np.array(vector_ids, dtype=np.int64),
        loss=np.full(n, experiment.evaluation.loss),
        rollouts=np.zeros(n, dtype=np.int64),
    )
    if rows:
        ids = [vector_ids[row] for row in rows]
        measured = measure_block(experiment, vectors[steers], ids, baseline, progress)
        for name in block._fields:
            getattr(block, name)[rows] = getattr(measured, name)
    return block


def losses_of(
    experiment: Experiment, vectors: Float[Tensor, "n d_model"]
) -> tuple[LossAt, PartLosses]:
    """Losses on the evaluation text, and on the part of it that is measured first."""
    lm, part = experiment.subject.lm, experiment.evaluation_part
    return loss_of(lm, experiment.evaluation, vectors), PartLosses(
        loss_of(lm, part, vectors), part.loss
    )


def _pilots(experiment: Experiment) -> Float[Tensor, "n d_model"]:
    width = experiment.subject.lm.d_model
    generator = torch_generator(experiment.subject.seed, PURPOSE, "pilots")
    return unit_vectors(torch.randn((PILOTS, width), generator=generator), width)


def _steered_means(
    experiment: Experiment,
    vectors: Float[Tensor, "n d_model"],
    scales: NDArray[np.float64],
    vector_ids: Sequence[int],
    progress: Callable[[int, int], None],
) -> tuple[Float[Tensor, "n d_sae"], Float[Tensor, "n d_sae"]]:
    """Mean activation over all rollouts of every vector, and its standard error; float64.

    Prompts are given, not drawn: only what rollouts of one prompt differ by is noise.
    """
    subject, plan = experiment.subject, experiment.plan(experiment.settings.samples)
    per_vector = plan.samples * len(experiment.settings.prompts)
    steered = Steered(vectors, torch.from_numpy(scales), vector_ids)
    total = torch.zeros(
        (len(vectors), subject.sae.d_sae), dtype=torch.float64, device=subject.lm.device
    )
    scatter, freedom, done = torch.zeros_like(total), torch.zeros_like(total[:, :1]), 0
    cache = BufferCache()
    for group in experiment.groups:
        memory = Memory(cache, Recording() if experiment.recorded else None)
        for rollouts in roll_out(subject.lm, subject.hook, group, steered, plan, memory):
            assert rollouts.resid is not None
            units, samples = rollouts.resid.shape[:2]
            unit_of_row = torch.arange(units, device=total.device).repeat_interleave(samples)
            sums = total.new_zeros((units, total.shape[1]))
            squares = torch.zeros_like(sums)
            for rows, means in mean_latents(
                subject.sae, rollouts.resid.flatten(0, 1), positions_read(subject.lm, rollouts)
            ):
                sums.index_add_(0, unit_of_row[rows], means)
                squares.index_add_(0, unit_of_row[rows], means.square_())
            total.index_add_(0, rollouts.vectors, sums)
            scatter.index_add_(
                0, rollouts.vectors, squares.sub_(sums.square_() / samples).clamp_min_(0)
            )
            freedom.index_add_(0, rollouts.vectors, freedom.new_full((units, 1), samples - 1))
            done += units * samples
            progress(done, per_vector * len(vectors))
    return total / per_vector, (scatter / freedom / per_vector).sqrt()


def positions_read(lm: LanguageModel, rollouts: Rollouts) -> Int[Tensor, " rows"] | None:
    """How many of the positions of every rollout are averaged: those before the token that ends its
    text.

    The ending token is left out as SAEs leave out special tokens. A rollout that ends at once is
    read there, so that every rollout counts, and each counts once, however long it is.

    Returns:
        None where the model has no token that ends a text: then it is all positions.
    """
    if not lm.end_ids or rollouts.resid is None:
        return None
    of_prompt = rollouts.resid.shape[2] - rollouts.tokens.shape[2]
    return (of_prompt + rollouts.lengths).clamp_min(1).flatten()


def mean_latents(
    sae: SAE, resid: Float[Tensor, "rows pos d_model"], counts: Int[Tensor, " rows"] | None = None
) -> Iterator[tuple[slice, Float[Tensor, "some d_sae"]]]:
    """Mean activation of every latent over the positions of every row: latents float32, their mean
    float64.

    Args:
        sae: whose latents are read.
        resid: the residual stream.
        counts: how many positions of each row are read, the first ones; None is all.

    Yields:
        A few rows at a time, as many as a processor's cache holds.
    """
    rows, length = resid.shape[:2]
    at_once = max(1, LATENTS_AT_ONCE[resid.device.type] // (length * sae.d_sae))
    whole = None if counts is None else (counts >= length).cpu()
    for start in range(0, rows, at_once):
        part = slice(start, min(start + at_once, rows))
        latents = sae.encode(resid[part].float())
        if counts is None or whole is None:
            yield part, latents.double().mean(1)
            continue
        if not whole[part].all():  # few texts end early, and a copy takes as long as the sum
            behind = torch.arange(length, device=resid.device) >= counts[part, None]
            latents = latents.masked_fill(behind[..., None], 0.0)
        # A third of the time, on a CPU, of a sum that is told to be of float64.
        yield part, latents.double().sum(1) / counts[part, None]


def unit_vectors(vectors: Float[Tensor, "n d_model"], d_model: int) -> Float[Tensor, "n d_model"]:
    """Bring vectors to unit norm, float32; those that are zero stay so.

    Raises:
        SaeflowError: no vectors, or one that is not finite or of the wrong width.
    """
    check_vectors(vectors, d_model, "effects")
    if not len(vectors):
        raise SaeflowError(
            "effects: the range of vectors is empty; check effects.vectors.range and the block "
            "number"
        )
    norms = vectors.double().norm(dim=1, keepdim=True)
    return (vectors.double() / torch.where(norms > 0, norms, 1.0)).float()
