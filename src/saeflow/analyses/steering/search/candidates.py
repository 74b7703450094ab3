"""What a search tries: vectors at several layers, each at several scales, and their completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeflow.activations.exclusion import capture_kept
from saeflow.analyses.steering.completions import absolute_scales, identity, write
from saeflow.analyses.steering.divergence import divergences
from saeflow.analyses.steering.examples import residuals
from saeflow.analyses.steering.io import SteeringVector
from saeflow.analyses.steering.schemas import SEARCHED_SCHEMA
from saeflow.analyses.steering.search import UNSTEERED
from saeflow.analyses.steering.vectors import VectorInputs, build_vector
from saeflow.config import Goal
from saeflow.config.sections import Activations
from saeflow.decoding.edits import check_vectors
from saeflow.decoding.rollouts import Steered
from saeflow.errors import SaeflowError
from saeflow.models.hooks import parse_hook
from saeflow.models.language_model import LanguageModel

if TYPE_CHECKING:
    from saeflow.analyses.steering.settings import Completions

BATCH = 8
"""Blocks of text per pass."""


class LayerVectors(NamedTuple):
    """What is tried at one layer."""

    vectors: Sequence[SteeringVector]
    """One per method, all of one hook."""
    mean_norm: float
    """Of the activations there."""

    @property
    def hook(self) -> str:
        """Where they are added."""
        return self.vectors[0].hook


def hook_behind(layer: int) -> str:
    """Where vectors are added behind a layer."""
    return f"blocks.{layer}.hook_resid_post"


def mean_norms(
    lm: LanguageModel,
    blocks: Int[Tensor, "blocks pos"],
    hooks: Sequence[str],
    activations: Activations,
) -> dict[str, float]:
    """The mean norm of the activations at each hook, over the positions that a cache of these hooks
    would hold.

    Args:
        lm: the model.
        blocks: of text.
        hooks: where to read.
        activations: what is left out of the study's caches.

    Raises:
        SaeflowError: no position is kept.
    """
    sums, count = dict.fromkeys(hooks, 0.0), 0
    for part in torch.split(blocks.to(lm.device), BATCH):
        read, kept = capture_kept(lm, part, hooks, activations)
        count += int(kept.sum())
        for hook, resid in read.items():
            sums[hook] += float(resid[kept].float().norm(dim=-1).double().sum())
    if not count:
        raise SaeflowError(
            "steering.search.tokens: not one token of the text is kept, so that no scale can be "
            "measured; raise it"
        )
    return {hook: total / count for hook, total in sums.items()}


@torch.no_grad()
def build_at(
    lm: LanguageModel,
    goal: Goal,
    name: str,
    hooks: Sequence[str],
    methods: Sequence[str],
    positions: Literal["mean", "last"],
    seed: int,
) -> dict[str, list[SteeringVector]]:
    """Build the vectors of methods that need no SAE at each of some hooks.

    Args:
        lm: the model.
        goal: what its file says.
        name: of the goal.
        hooks: where the vectors will be added.
        methods: those of `saeflow.analyses.steering.methods.AT_ANY_LAYER`.
        positions: what of an example counts; see ``steering.vectors.caa_positions``.
        seed: of the study. Each hook gets a random direction of its own.

    Raises:
        SaeflowError: an example has no tokens or too many, or a vector comes out zero.
    """
    pooled = {
        side: _pooled(lm, texts, hooks, positions)
        for side, texts in (("positive", goal.positive), ("negative", goal.negative))
    }
    vectors: dict[str, list[SteeringVector]] = {}
    for hook in hooks:
        inputs = VectorInputs(
            goal=f"{name} at {hook}",
            seed=seed,
            targets={},
            W_dec=torch.zeros(0, lm.d_model),
            positive=pooled["positive"][hook],
            negative=pooled["negative"][hook],
        )
        for method in methods:
            built = build_vector(method, inputs)
            vectors.setdefault(hook, []).append(
                SteeringVector.towards(
                    {}, built.vector, hook=hook, goal=name, method=method, norm=built.norm
                )
            )
    return vectors


def _pooled(
    lm: LanguageModel, texts: Sequence[str], hooks: Sequence[str], positions: str
) -> dict[str, Float[Tensor, "texts d_model"]]:
    """One activation per text at each hook, all hooks read in one pass."""
    rows: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for text in texts:
        for hook, resid in residuals(lm, hooks, text)[1].items():
            rows[hook].append((resid.mean(0) if positions == "mean" else resid[-1]).cpu())
    return {hook: torch.stack(own) for hook, own in rows.items()}


def complete_layer(
    lm: LanguageModel,
    tried: LayerVectors,
    settings: Completions,
    seed: int,
    *,
    unsteered: bool,
    progress: Callable[[int, int], None] | None = None,
    recorded: bool = False,
) -> pl.DataFrame:
    """Complete the prompts with every vector of a layer at every scale, all in the same batches.

    The noise of a completion is named by prompt and sample, as that of all completions of a study.

    Args:
        lm: the model.
        tried: the vectors.
        settings: prompts, samples, new tokens, sampling, and scales, of which the first is 0.
        seed: of the study.
        unsteered: whether to complete the prompts without a vector, too.
        progress: called with (completions done, completions).
        recorded: whether decode steps are recorded as CUDA graphs and replayed.

    Returns:
        The columns of `SEARCHED_SCHEMA`. ``scale`` is absolute, ``scale_index`` its place among the
        settings' scales; completions without a vector have the method `UNSTEERED`.

    Raises:
        SaeflowError: as `saeflow.analyses.steering.completions.complete`.
    """
    goal, layer = tried.vectors[0].goal, parse_hook(tried.hook).layer
    points = [(UNSTEERED, 0, 0.0)] if unsteered else []
    added = [torch.zeros(lm.d_model)] if unsteered else []
    for steered in tried.vectors:
        vector = steered.of_width(lm.d_model)
        check_vectors(vector[None], lm.d_model, f"goal {goal}, method {steered.method}")
        scales = absolute_scales(settings, tried.mean_norm, steered.norm)
        points += [(steered.method, index, scale) for index, scale in enumerate(scales) if index]
        added += [vector] * (len(scales) - 1)
    all_scales = torch.tensor([scale for _, _, scale in points], dtype=torch.float64)
    side_by_side = Steered(torch.stack(added), all_scales, range(len(points)))
    rows = write(lm, tried.hook, side_by_side, settings, seed, progress=progress, recorded=recorded)
    for row in rows:
        method, index, scale = points[row.pop("number")]
        of_prompt = (row["prompt"], row.pop("occurrence"), row["sample"])
        row |= {"goal": goal, "method": method, "seed": seed, "layer": layer}
        row |= {"scale": scale, "scale_index": index}
        # The scale as it was asked for: its length is a mean norm, whose last bit is the machine's.
        asked = settings.scales[index]
        row["completion_id"] = identity(seed, goal, method, tried.hook, asked, *of_prompt)
    return pl.DataFrame(rows, schema=SEARCHED_SCHEMA)


def layer_divergences(
    lm: LanguageModel,
    tried: LayerVectors,
    completions: pl.DataFrame,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """KL(steered ‖ unsteered) on each completion of `complete_layer`; columns and errors as of
    `divergences`."""
    by_method: Mapping[str, SteeringVector] = {each.method: each for each in tried.vectors}
    tables, done = [], 0
    for (method,), written in completions.group_by("method", maintain_order=True):
        steered = by_method.get(str(method), tried.vectors[0])  # unsteered: whichever, at scale 0
        tables.append(divergences(lm, tried.hook, steered.of_width(lm.d_model), written))
        done += len(written)
        if progress:
            progress(done, len(completions))
    return pl.concat(tables)
