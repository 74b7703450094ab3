"""What a model holds at separators behind examples: vectors of tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from transformers.cache_utils import DynamicCache

from saeflow.analyses.tasks.answering import Rows, answers_of, rows_of
from saeflow.analyses.tasks.prompts import (
    Question,
    Shown,
    drawn_pairs,
    question,
    text_of,
    with_examples,
)
from saeflow.artifacts import sealed
from saeflow.errors import SaeflowError
from saeflow.models.hooks import HookFunction, attach, check_hook
from saeflow.models.reading import read_at
from saeflow.seals import stamp
from saeflow.seeds import numpy_generator
from saeflow.tensors import read_tensors

if TYPE_CHECKING:
    from saeflow.analyses.tasks.lists import Pair, Split
    from saeflow.analyses.tasks.settings import TaskPrompts, TaskVectors
    from saeflow.models.language_model import LanguageModel

HEADS = {
    "task": pl.String,
    "layer": pl.Int32,
    "head": pl.Int32,
    "effect": pl.Float64,
    "chosen": pl.Boolean,
}
_ROWS_AT_ONCE = 64


class Means(NamedTuple):
    """Means over prompts at the last separator.

    Attributes:
        mean, zero, placebo: the residual stream behind every layer, with examples, without, and
            with examples whose outputs are exchanged.
        heads: what each head gives before the output projection, with examples.
    """

    mean: Float[Tensor, "layers d_model"]
    zero: Float[Tensor, "layers d_model"]
    placebo: Float[Tensor, "layers d_model"]
    heads: Float[Tensor, "layers heads width"]


def read_means(
    lm: LanguageModel, pairs: Split, prompts: TaskPrompts, seed: int, task: str, heads: bool
) -> Means:
    """Read prompts that ask for pairs to learn from, with examples of these.

    Args:
        heads: whether they are read, too.
    """
    pool = pairs["train"]
    asked = drawn_pairs(pool, prompts.drawn, _draws(seed, task, "asked"))
    kinds = {
        "mean": with_examples(asked, pool, prompts.shots, _draws(seed, task, "examples")),
        "zero": [Shown([], pair) for pair in asked],
        "placebo": with_examples(
            asked, pool, prompts.shots, _draws(seed, task, "placebo"), exchanged=True
        ),
    }
    for shown in kinds.values():
        for each in shown:  # so that what is wrong is told before hundreds of passes
            question(lm, each, prompts, prompts.template, task)
    stream = [f"blocks.{layer}.hook_resid_post" for layer in range(lm.n_layers)]
    of_heads = [f"blocks.{layer}.attn.hook_z" for layer in range(lm.n_layers)]
    means: dict[str, Tensor] = {}
    of_every_head = torch.empty(0, 0, 0)
    for kind, shown in kinds.items():
        hooks = [*stream, *(of_heads if kind == "mean" and heads else [])]
        texts = [text_of(each, prompts, prompts.template) for each in shown]
        sums = {hook: torch.zeros(0, dtype=torch.float64) for hook in hooks}
        for read in read_at(lm, texts, "last", hooks, task):
            for hook, held in read.activations.items():
                sums[hook] = held.double() if not len(sums[hook]) else sums[hook] + held
        means[kind] = torch.stack([sums[hook] for hook in stream]).float() / len(texts)
        if kind == "mean" and heads:
            side_by_side = torch.stack([sums[hook] for hook in of_heads]).float() / len(texts)
            of_every_head = side_by_side.view(lm.n_layers, n_heads(lm), -1)
    return Means(**means, heads=of_every_head)


def _draws(seed: int, task: str, what: str) -> np.random.Generator:
    return numpy_generator(seed, "tasks", task, what)


def n_heads(lm: LanguageModel) -> int:
    """Heads of a layer."""
    return int(lm.model.config.num_attention_heads)


def has_heads(lm: LanguageModel) -> bool:
    """Whether every layer has heads whose outputs can be told apart and exchanged."""
    if lm.keeps_states or lm.family.adapted:
        return False
    try:
        for layer in range(lm.n_layers):
            check_hook(lm, f"blocks.{layer}.attn.hook_z")
    except SaeflowError:
        return False
    return True


@torch.no_grad()
def indirect_effects(
    lm: LanguageModel, questions: Sequence[Question], means: Float[Tensor, "layers heads width"]
) -> Float[Tensor, "layers heads"]:
    """How much likelier the right output becomes when one head's output at the separator is
    exchanged for its mean over prompts of the task; mean over prompts.

    What stands before the separator is run once a prompt, and all heads side by side behind it.
    (Todd et al. 2024, arXiv 2310.15213)

    Args:
        lm: the model, of attention alone.
        questions: prompts whose examples have exchanged outputs.
        means: what the heads are exchanged for.
    """
    layers, heads, width = means.shape
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    total = torch.zeros(layers * heads, dtype=torch.float64)
    values = means.to(lm.device, lm.dtype)
    for each in questions:
        cache = DynamicCache()
        before = torch.tensor([each.tokens[:-1]], device=lm.device)
        lm.decoder(before, past_key_values=cache, use_cache=True)
        # the separator alone, then its answer: rows as if nothing stood before them
        rows = rows_of(lm, [each._replace(tokens=each.tokens[-1:])])
        usual = _probability(lm, rows, cache, {})
        for first in range(0, len(every), _ROWS_AT_ONCE):
            part = every[first : first + _ROWS_AT_ONCE]
            exchanged: dict[int, list[tuple[int, int]]] = {}
            for row, (layer, head) in enumerate(part):
                exchanged.setdefault(layer, []).append((row, head))
            hooks = {
                layer: _exchange(values[layer], places, width)
                for layer, places in exchanged.items()
            }
            changed = _probability(lm, rows, cache, hooks, len(part))
            total[first : first + len(part)] += changed - usual
    return (total / len(questions)).view(layers, heads).float()


def _exchange(
    means: Float[Tensor, "heads width"], places: Sequence[tuple[int, int]], width: int
) -> HookFunction:
    def edit(z: Float[Tensor, "rows pos side_by_side"]) -> Tensor:
        edited = z.clone()
        for row, head in places:
            edited[row, 0, head * width : (head + 1) * width] = means[head]
        return edited

    return edit


def _probability(
    lm: LanguageModel,
    rows: Rows,
    cache: DynamicCache,
    hooks: Mapping[int, HookFunction],
    count: int = 1,
) -> Float[Tensor, " count"]:
    """Probabilities of one answer, in so many rows that differ by hooks on heads of some layers."""
    own = copy.deepcopy(cache)
    own.reorder_cache(torch.zeros(count, dtype=torch.long, device=lm.device))
    repeated = Rows(
        rows.tokens.expand(count, -1),
        rows.places.expand(count),
        torch.arange(count, device=lm.device).repeat_interleave(len(rows.row)),
        rows.position.repeat(count),
        rows.target.repeat(count),
    )
    with attach(lm, [(f"blocks.{layer}.attn.hook_z", edit) for layer, edit in hooks.items()]):
        states = lm.decoder(repeated.tokens, past_key_values=own, use_cache=True).last_hidden_state
    losses, _ = answers_of(lm, states, repeated)
    return losses.double().neg().exp().cpu()


def chosen_heads(
    effects: Float[Tensor, "tasks layers heads"], count: int
) -> Int[Tensor, "count 2"]:
    """Layer and head of the largest effects on average over tasks, the largest first."""
    mean = effects.mean(0)
    best = mean.flatten().argsort(descending=True, stable=True)[:count]
    return torch.stack([best // mean.shape[1], best % mean.shape[1]], dim=1)


@torch.no_grad()
def function_vector(
    lm: LanguageModel,
    means: Float[Tensor, "layers heads width"],
    heads: Int[Tensor, "count 2"],
) -> Float[Tensor, " d_model"]:
    """The sum of what some heads write into the residual stream on average (a norm that stands
    behind attention is left out)."""
    total = torch.zeros(lm.d_model)
    for layer in sorted(set(heads[:, 0].tolist())):
        held = torch.zeros_like(means[layer])
        own = heads[heads[:, 0] == layer, 1]
        held[own] = means[layer][own]
        site = lm.family.sites["attn.hook_z"]
        project = lm.blocks[layer].get_submodule(site.module)
        rows = torch.stack([held.flatten(), torch.zeros(held.numel())])
        written = project(rows.to(lm.device, lm.dtype)).float().cpu()
        total += written[0] - written[1]
    return total


def read_vectors(
    lm: LanguageModel,
    splits: Mapping[str, Split],
    prompts: TaskPrompts,
    asked: TaskVectors,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Tensor], Float[Tensor, "tasks layers heads"] | None]:
    """The vectors of all tasks, by ``<task>/<kind>``, and the indirect effects of heads.

    Raises:
        SaeflowError: function vectors are asked for, and heads cannot be told apart.
    """
    functional = "function" in asked.kinds
    if functional and not has_heads(lm):
        raise SaeflowError(
            f"tasks.vectors.kinds: outputs of heads of {lm.model.config.model_type} models cannot "
            "be exchanged one by one; leave out function"
        )
    means: dict[str, Means] = {}
    effects: list[Tensor] = []
    for done, (task, pairs) in enumerate(splits.items(), start=1):
        means[task] = read_means(lm, pairs, prompts, seed, task, functional)
        if functional:
            questions = exchanged_questions(lm, pairs, prompts, asked.head_prompts, seed, task)
            effects.append(indirect_effects(lm, questions, means[task].heads))
        if progress:
            progress(done, len(splits))
    tensors = {
        f"{task}/{kind}": getattr(each, kind)
        for task, each in means.items()
        for kind in ("mean", "zero", "placebo")
    }
    if not functional:
        return tensors, None
    every = torch.stack(effects)
    heads = chosen_heads(every, asked.heads)
    for task, each in means.items():
        tensors[f"{task}/function"] = function_vector(lm, each.heads, heads)
    return tensors, every


def exchanged_questions(
    lm: LanguageModel, pairs: Split, prompts: TaskPrompts, count: int, seed: int, task: str
) -> list[Question]:
    """Prompts in which heads are tried: examples with exchanged outputs."""
    asked: list[Pair] = drawn_pairs(pairs["train"], count, _draws(seed, task, "tried"))
    shown = with_examples(
        asked, pairs["train"], prompts.shots, _draws(seed, task, "spoilt"), exchanged=True
    )
    return [question(lm, each, prompts, prompts.template, task) for each in shown]


def heads_table(
    tasks: Sequence[str], effects: Float[Tensor, "tasks layers heads"] | None, count: int
) -> pl.DataFrame:
    """Indirect effects of all heads on every task, and which heads make function vectors; no rows
    where none are asked for."""
    if effects is None:
        return pl.DataFrame(schema=HEADS)
    chosen = {tuple(each) for each in chosen_heads(effects, count).tolist()}
    rows = [
        (task, layer, head, float(effects[number, layer, head]), (layer, head) in chosen)
        for number, task in enumerate(tasks)
        for layer in range(effects.shape[1])
        for head in range(effects.shape[2])
    ]
    return pl.DataFrame(rows, schema=HEADS, orient="row")


def save_vectors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the vectors of all tasks into one file."""
    with sealed(path) as temporary:
        held = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(held, temporary, metadata=stamp())


class Vectors:
    """What `save_vectors` wrote.

    Args:
        path: of the file.

    Raises:
        SaeflowError: it is absent or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._tensors = path, read_tensors(path)

    def of(self, task: str, kind: str, layer: int) -> Float[Tensor, " d_model"]:
        """The vector of a task that is added behind a layer.

        Args:
            task: its name.
            kind: of `saeflow.analyses.tasks.settings.VectorKind`.
            layer: behind which.
        """
        if kind == "function":
            return self._tensor(f"{task}/function")
        if kind == "difference":
            return self.of(task, "mean", layer) - self._tensor(f"{task}/zero")[layer]
        return self._tensor(f"{task}/{kind}")[layer]

    def _tensor(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise SaeflowError(f"{self._path}: lacks '{name}'; make it again")
        return self._tensors[name]
