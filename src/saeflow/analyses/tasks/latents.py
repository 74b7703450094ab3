"""Latents that carry out a task, and latents that find it: what each does alone to every task, and
where in the examples it fires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64

from saeflow.analyses.tasks.answering import Frozen
from saeflow.analyses.tasks.comparing import CLEANED, asked_for
from saeflow.analyses.tasks.prompts import PLACES, drawn_pairs, places_of, with_examples
from saeflow.analyses.tasks.shares import Shares
from saeflow.analyses.tasks.sweep import ask
from saeflow.models.running import capture
from saeflow.models.unembedding import unembedding
from saeflow.models.vocabulary import vocabulary
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

if TYPE_CHECKING:
    from saeflow.analyses.tasks.lists import Split
    from saeflow.analyses.tasks.settings import Cleaning, TaskPrompts, TaskVectors
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

EXECUTION, DETECTION = "execution", "detection"
LATENTS: Schema = {
    "latent": pl.Int32,
    "task": pl.String,
    "kind": pl.String,
    "value": pl.Float64,
    "fires_at": pl.String,
    "rate": pl.Float64,
    "elsewhere": pl.Float64,
    "words": pl.List(pl.String),
}
SPECIFICITY = {
    "latent": pl.Int32,
    "of": pl.String,
    "kind": pl.String,
    "task": pl.String,
    "amount": pl.Float64,
    "n": pl.Int32,
    "gain": pl.Float64,
    "recovered": pl.Float64,
    "recovered_low": pl.Float64,
    "recovered_high": pl.Float64,
}
FIRING = {
    "latent": pl.Int32,
    "task": pl.String,
    "place": pl.String,
    "rate": pl.Float64,
    "mean": pl.Float64,
    "n": pl.Int32,
}


class Listed(NamedTuple):
    """A latent that is looked at.

    Attributes:
        latent: its index.
        task: that it was found in.
        kind: ``execution``, of the cleaned vector; ``detection``, by where it fires.
        value: its code in the cleaned vector; None of others.
    """

    latent: int
    task: str
    kind: str
    value: float | None


class Fired(NamedTuple):
    """How latents fire at one part of a task's examples: arrays ``[d_sae]``."""

    rate: Float64[np.ndarray, " d_sae"]
    mean: Float64[np.ndarray, " d_sae"]
    n: int


class LatentTables(NamedTuple):
    """Tables of `LATENTS`, `SPECIFICITY` and `FIRING`."""

    latents: pl.DataFrame
    specificity: pl.DataFrame
    firing: pl.DataFrame


@torch.no_grad()
def fired(
    lm: LanguageModel, sae: SAE, hook: str, pairs: Split, prompts: TaskPrompts, seed: int, task: str
) -> dict[str, Fired]:
    """How latents fire at the last token of each part of examples, by part of `PLACES`."""
    pool = pairs["train"]
    asked = drawn_pairs(pool, prompts.drawn, numpy_generator(seed, "tasks", task, "asked"))
    shown = with_examples(
        asked, pool, prompts.shots, numpy_generator(seed, "tasks", task, "examples")
    )
    number = dict.fromkeys(PLACES, 0)
    times = {part: np.zeros(sae.d_sae) for part in PLACES}
    sums = {part: np.zeros(sae.d_sae) for part in PLACES}
    for each in shown:
        tokens, places = places_of(lm, each, prompts, prompts.template, task)
        held = capture(lm, torch.tensor([tokens], device=lm.device), [hook])[hook][0]
        for part, own in places.items():
            at = torch.tensor(own, dtype=torch.long, device=lm.device)  # there may be none
            codes = sae.encode(held[at]).double().cpu().numpy()
            number[part] += len(own)
            times[part] += (codes > 0).sum(axis=0)
            sums[part] += codes.sum(axis=0)
    return {
        part: Fired(times[part] / n, sums[part] / n, n)
        for part, n in number.items()
        if n  # a token may span the end of every input, or of every output
    }


def look(
    lm: LanguageModel,
    sae: SAE,
    hook: str,
    splits: Mapping[str, Split],
    codes: Mapping[str, pl.DataFrame],
    prompts: TaskPrompts,
    asked: TaskVectors,
    own: Cleaning,
    seed: int,
) -> LatentTables:
    """Look at the latents that cleaning left, and at those that fire at the answers of one task.

    Alone, a latent is added as far as the cleaned vector of its task is long, so that what one
    latent does is not told by how little of it there was. Where cleaning left nothing of a task,
    there is no such length, and its latents are not added.

    Args:
        codes: tables of `saeflow.analyses.tasks.comparing.CODES` by task.
    """
    firing = {
        task: fired(lm, sae, hook, pairs, prompts, seed, task) for task, pairs in splits.items()
    }
    chosen = {
        task: table.filter(pl.col("method") == CLEANED, "chosen").sort(
            "value", descending=True, maintain_order=True
        )
        for task, table in codes.items()
    }
    amounts = {task: _length(sae, table) for task, table in chosen.items()}
    listed = [*_executing(chosen, own.shown), *_detecting(firing, own.shown)]
    layer = int(hook.split(".")[1])
    rows: list[dict[str, object]] = []
    for task, pairs in splits.items():
        test = ask(lm, pairs, "test", prompts, prompts.template, seed, task)
        frozen = Frozen(lm, asked_for(lm, pairs, "test", prompts, task), layer)
        shares = Shares(test.ends, asked.draws, asked.level, seed, task)
        for each in listed:
            if not (amount := amounts[each.task]):
                continue
            answers = frozen.with_added(amount * sae.W_dec[each.latent].float())
            mean = shares.recovered(answers)
            rows.append(
                {
                    "latent": each.latent, "of": each.task, "kind": each.kind, "task": task,
                    "amount": amount, "n": len(answers.loss),
                    "gain": float((test.ends.zero.loss - answers.loss).mean()),
                    "recovered": mean.value, "recovered_low": mean.low,
                    "recovered_high": mean.high,
                }
            )  # fmt: skip
    words = _words(lm, sae, [each.latent for each in listed], own.words)
    latents = [
        {
            **each._asdict(), **_fires_at(firing, each),
            "words": words.get(each.latent, []),
        }
        for each in listed
    ]  # fmt: skip
    return LatentTables(
        pl.DataFrame(latents, schema=LATENTS),
        pl.DataFrame(rows, schema=SPECIFICITY).with_columns(
            pl.col("recovered", "recovered_low", "recovered_high").fill_nan(None)
        ),
        _firing_table(firing, sorted({each.latent for each in listed})),
    )


def _executing(chosen: Mapping[str, pl.DataFrame], shown: int) -> list[Listed]:
    return [
        Listed(row["latent"], task, EXECUTION, row["value"])
        for task, table in chosen.items()
        for row in table.head(shown).to_dicts()
    ]


def _detecting(firing: Mapping[str, Mapping[str, Fired]], shown: int) -> list[Listed]:
    """The latents whose rate at a task's answers is farthest above that at inputs and at the
    answers of every other task; none of a task whose outputs no token ends with."""
    listed = []
    ended = {task: own for task, own in firing.items() if "output" in own}
    for task, own in ended.items():
        beside = [other["output"].rate for name, other in ended.items() if name != task]
        if "input" in own:
            beside.append(own["input"].rate)
        above = own["output"].rate - np.max(beside, axis=0) if beside else own["output"].rate
        order = np.argsort(-above, kind="stable")[:shown]
        listed += [Listed(int(i), task, DETECTION, None) for i in order if above[i] > 0]
    return listed


def _length(sae: SAE, codes: pl.DataFrame) -> float:
    """Of the cleaned vector."""
    latents = torch.tensor(codes["latent"].to_list(), dtype=torch.long, device=sae.W_dec.device)
    values = torch.tensor(codes["value"].to_list(), device=sae.W_dec.device)
    return float((values @ sae.W_dec[latents].float()).norm())


def _fires_at(firing: Mapping[str, Mapping[str, Fired]], each: Listed) -> dict[str, object]:
    """Where in its task's examples a latent fires most often, and how often there; and how often it
    does at that place of other tasks, at most."""
    own = firing[each.task]
    place = max(own, key=lambda part: own[part].rate[each.latent])
    elsewhere = [
        other[place].rate[each.latent]
        for task, other in firing.items()
        if task != each.task and place in other
    ]
    rate = float(own[place].rate[each.latent])
    return {
        "fires_at": place if rate else None,
        "rate": rate,
        "elsewhere": float(max(elsewhere)) if elsewhere else None,
    }


def _words(lm: LanguageModel, sae: SAE, latents: Sequence[int], count: int) -> dict[int, list[str]]:
    """The tokens whose logits a latent's decoder row raises most, straight through the final norm
    and the unembedding."""
    if not latents or not count:
        return {}
    held = vocabulary(lm.tokenizer, lm.d_vocab)
    different = sorted(set(latents))
    rows = sae.W_dec[torch.tensor(different, device=sae.W_dec.device)].float()
    steps = ["final_norm", "centred"]
    logits = unembedding(lm, held.ids.tolist(), steps) @ rows.T.to(lm.device)
    logits[torch.from_numpy(held.special.nonzero()[0]).to(lm.device)] = -torch.inf
    best = logits.topk(min(count, len(logits)), dim=0).indices.T.cpu()
    return {
        latent: [held.texts[place] for place in own]
        for latent, own in zip(different, best.tolist(), strict=True)
    }


def _firing_table(
    firing: Mapping[str, Mapping[str, Fired]], latents: Sequence[int]
) -> pl.DataFrame:
    rows = [
        (latent, task, place, float(own.rate[latent]), float(own.mean[latent]), own.n)
        for latent in latents
        for task, places in firing.items()
        for place, own in places.items()
    ]
    return pl.DataFrame(rows, schema=FIRING, orient="row")
