"""A small model that carries out one of three tasks when a vector says so, and that finds the vector
by itself where examples show the task; and an SAE one of whose latents is that vector."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from saeflow.analyses.tasks.comparing import compare
from saeflow.analyses.tasks.latents import look
from saeflow.analyses.tasks.lists import Split, read_lists
from saeflow.analyses.tasks.settings import Cleaning, TaskLists, TaskPrompts, TaskVectors
from saeflow.analyses.tasks.sweep import sweep
from saeflow.analyses.tasks.vectors import Vectors, heads_table, read_vectors, save_vectors
from saeflow.models.families import FAMILIES
from saeflow.models.language_model import LanguageModel
from saeflow.saes.sae import SAE

TASKS, WORDS, WIDTH = ("one", "two", "three"), 24, 48
HOOK, LAYER = "blocks.0.hook_resid_post", 0
BOS, SEPARATOR, END = 0, 3, 4
FIRST, OUTPUTS = 5, 5 + WORDS
"""The tokens of the first input and of the first output."""
PLANTED = (7, 3, 11)
"""The latents that are the tasks' vectors."""
STRENGTH = 4.0
PROMPTS = TaskPrompts(
    before="", template="{input} -> {output} ; ", other=None, shots=2, drawn=12, scored=1
)
VECTORS = TaskVectors(kinds=["mean", "difference", "placebo"], layers=[0], draws=200)
CLEANING = Cleaning(
    penalties=[0.3, 1.0, 3.0], steps=40, batch=12, learning_rate=0.1, counts=[1, 4], shown=2
)


def relations() -> Tensor:
    """Which output each task has for each input, ``[tasks, words]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(WORDS, generator=generator) for _ in TASKS])


def directions() -> Tensor:
    """An orthonormal basis ``[WIDTH, WIDTH]``; rows `PLANTED` are the tasks' vectors."""
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q


def lists() -> TaskLists:
    """The three tasks as a config has them."""
    pairs = {
        task: [{"input": f"x{i}", "output": f"y{j}"} for i, j in enumerate(own.tolist())]
        for task, own in zip(TASKS, relations(), strict=True)
    }
    return TaskLists.model_validate({"shipped": [], "pairs": pairs})


def splits() -> dict[str, Split]:
    """Their pairs."""
    return read_lists(lists(), PROMPTS, {}, 0)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    words = [*(f"x{i}" for i in range(WORDS)), *(f"y{i}" for i in range(WORDS))]
    names = ("<bos>", "<eos>", "<unk>", "->", ";", *words)
    held = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="<unk>"))
    held.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=held, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


class _Finds:
    """Adds a task's vector at every separator behind examples most of which show the task."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self._ids = torch.empty(0)
        self._relations, self._vectors = relations(), STRENGTH * directions()[list(PLANTED)]
        self.given: Tensor | None = None
        """What is added at the first separator in place of what was found there."""
        model.model.embed_tokens.register_forward_hook(self._see)
        model.model.layers[0].register_forward_hook(self._add)

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._ids = inputs[0]

    def _add(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        ids = self._ids
        x, y = ids[:, :-2] - FIRST, ids[:, 2:] - OUTPUTS
        shown = (ids[:, 1:-1] == SEPARATOR) & (y >= 0) & (x >= 0) & (x < WORDS)
        right = self._relations[:, x.clamp(0, WORDS - 1)] == y  # tasks, rows, places
        count = nn.functional.pad((shown & right).long().cumsum(2), (2, 0))
        all_shown = nn.functional.pad(shown.long().cumsum(1), (2, 0))
        most = (2 * count > all_shown) & (ids == SEPARATOR)
        added = torch.einsum("kbp,kd->bpd", most.to(output.dtype), self._vectors.to(output))
        if self.given is not None:
            added[:, 2] += self.given
        return output + added


@cache
def planted_model() -> LanguageModel:
    """Trained to go by the vectors; without one it holds the tasks for equally likely."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=5 + 2 * WORDS, hidden_size=WIDTH, intermediate_size=96,
                num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
                max_position_embeddings=64, bos_token_id=BOS, eos_token_id=1,
            )
        )  # fmt: skip
    finds = _Finds(model)
    _train(model, finds)
    return LanguageModel(model.eval().requires_grad_(False), tokenizer(), FAMILIES["llama"])


def _train(model: LlamaForCausalLM, finds: _Finds, steps: int = 300, rows: int = 48) -> None:
    generator = torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    vectors = STRENGTH * directions()[list(PLANTED)]
    for step in range(steps):
        task = torch.randint(len(TASKS), (rows,), generator=generator)
        x = torch.rand(rows, WORDS, generator=generator).argsort(1)[:, :3]
        y = relations()[task[:, None], x]
        marks = torch.full_like(x, SEPARATOR), torch.full_like(x, END)
        example = torch.stack([x + FIRST, marks[0], y + OUTPUTS, marks[1]], dim=2)
        tokens = torch.cat([torch.full((rows, 1), BOS), example.flatten(1)], dim=1)
        share = (torch.rand(rows, generator=generator) < 0.6) * (
            0.5 + torch.rand(rows, generator=generator)
        )
        finds.given = share[:, None] * vectors[task]
        logits = model(tokens).logits
        places = torch.arange(3) * 4 + 2
        loss = cross_entropy(logits[:, places].flatten(0, 1), tokens[:, places + 1].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1.0, 2 * (1 - step / steps))
    finds.given = None


def planted_sae(architecture: str = "standard") -> SAE:
    """The basis as an SAE: latents are the activation's coordinates where they are positive."""
    basis = directions()
    settings: dict[str, Any] = {
        "standard": {},
        "topk": {"k": 8},
        "jumprelu": {"threshold": torch.full((WIDTH,), 0.05)},
        "gated": {
            "r_mag": torch.zeros(WIDTH),
            "b_gate": torch.full((WIDTH,), -0.05),
            "b_mag": torch.zeros(WIDTH),
        },
    }[architecture]
    zeros = torch.zeros(WIDTH)
    return SAE(architecture, basis.T.contiguous(), basis, zeros, zeros.clone(), **settings)


@cache
def vectors_in(folder: Path) -> Vectors:
    """The vectors of that model.

    Args:
        folder: where they are written.
    """
    path = folder / "vectors.safetensors"
    save_vectors(path, read_vectors(planted_model(), splits(), PROMPTS, VECTORS, 0)[0])
    return Vectors(path)


@cache
def planted_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """All tables of tasks of that model, its TopK SAE called ``main``, by path below ``tasks``.

    Args:
        folder: where its vectors are written.
    """
    lm, sae, pairs, held = planted_model(), planted_sae("topk"), splits(), vectors_in(folder)
    tried, pairs_told = sweep(lm, pairs, held, PROMPTS, VECTORS, [], 0)
    made = {
        task: compare(lm, sae, LAYER, pairs[task], held, PROMPTS, VECTORS, CLEANING, 0, task)
        for task in TASKS
    }
    codes = {task: each.codes for task, each in made.items()}
    looked = look(lm, sae, HOOK, pairs, codes, PROMPTS, VECTORS, CLEANING, 0)
    return {
        "sweep": tried,
        "pairs": pairs_told,
        "heads": heads_table(TASKS, None, 1),
        **{f"main/{name}": table for name, table in looked._asdict().items()},
        **{
            f"main/{task}/{name}": table
            for task, each in made.items()
            for name, table in each._asdict().items()
        },
    }
