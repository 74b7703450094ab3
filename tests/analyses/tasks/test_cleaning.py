"""Cleaning leaves exactly the planted latent, in every kind of SAE, where pursuits do not find it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from planted_tasks import (
    CLEANING,
    HOOK,
    LAYER,
    PLANTED,
    PROMPTS,
    TASKS,
    VECTORS,
    planted_model,
    planted_sae,
    splits,
    vectors_in,
)

from saeflow.analyses.tasks.answering import Frozen
from saeflow.analyses.tasks.cleaning import clean, start_of
from saeflow.analyses.tasks.comparing import Compared, asked_for, compare
from saeflow.analyses.tasks.latents import look
from saeflow.errors import SaeflowError
from saeflow.pursuits.dictionary import Dictionary
from saeflow.pursuits.greedy import orthogonal

ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@cache
def compared(folder: Path, architecture: str, task: str) -> Compared:
    pairs, held = splits()[task], vectors_in(folder)
    sae = planted_sae(architecture)
    return compare(planted_model(), sae, LAYER, pairs, held, PROMPTS, VECTORS, CLEANING, 0, task)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("task", "planted"), zip(TASKS, PLANTED, strict=True))
def test_the_cleaned_vector_is_the_planted_latent_and_nothing_else(
    folder: Path, architecture: str, task: str, planted: int
) -> None:
    made = compared(folder, architecture, task)
    chosen = made.codes.filter("chosen", method="cleaned")
    assert chosen["latent"].to_list() == [planted]
    row = made.curves.filter("chosen", method="cleaned").row(0, named=True)
    assert row["latents"] == 1
    assert row["recovered_low"] > 0.9


def test_what_is_cleaned_for_exchanged_answers_recovers_nothing(folder: Path) -> None:
    for task in TASKS:
        row = compared(folder, "topk", task).curves.filter("chosen", method="cleaned_placebo")
        assert row["recovered"].item() < 0.1


def test_cleaning_finds_the_latent_that_a_larger_one_hides_from_pursuits(folder: Path) -> None:
    lm, sae, pairs = planted_model(), planted_sae("topk"), splits()["one"]
    hidden = 20
    vector = vectors_in(folder).of("one", "mean", LAYER) + 12 * sae.W_dec[hidden]
    first = orthogonal(vector[None], Dictionary(sae.W_dec), 1).atoms[0, 0, 0]
    assert int(first) == hidden
    validation = Frozen(lm, asked_for(lm, pairs, "validation", PROMPTS, "one"), LAYER)
    train = asked_for(lm, pairs, "train", PROMPTS, "one")
    start = start_of(sae, vector)
    path = clean(lm, sae, start, LAYER, train, validation, CLEANING, np.random.default_rng(0))
    assert path.points[path.chosen].latents.tolist() == [PLANTED[0]]


def test_supports_shrink_along_the_path_and_begin_in_what_the_encoder_gives(folder: Path) -> None:
    lm, sae, pairs = planted_model(), planted_sae("standard"), splits()["two"]
    start = start_of(sae, vectors_in(folder).of("two", "mean", LAYER))
    validation = Frozen(lm, asked_for(lm, pairs, "validation", PROMPTS, "two"), LAYER)
    train = asked_for(lm, pairs, "train", PROMPTS, "two")
    gentle = CLEANING.model_copy(update={"penalties": [1e-4, 1e-2, 0.1, 3.0], "steps": 15})
    path = clean(lm, sae, start, LAYER, train, validation, gentle, np.random.default_rng(0))
    supports = [set(start.latents.tolist()), *(set(p.latents.tolist()) for p in path.points)]
    assert all(later <= earlier for earlier, later in pairwise(supports))
    assert len(supports[-1]) < len(supports[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_codes_begin_as_the_encoder_gives_them_and_hold_nothing_below_their_threshold(
    architecture: str,
) -> None:
    sae = planted_sae(architecture)
    vector = torch.randn(48, generator=torch.Generator().manual_seed(0))
    start, codes = start_of(sae, vector), sae.encode(vector[None])[0]
    ones = torch.ones_like(start.excess)
    torch.testing.assert_close(start.values(ones), codes[start.latents])
    assert len(start.latents) == int((codes > 0).sum())
    assert start.price(ones).item() == pytest.approx(1)
    barely = start.values(torch.full_like(ones, 1e-9))
    torch.testing.assert_close(barely, start.floor)
    if architecture == "topk":
        pre = (vector @ sae.W_enc).topk(9).values
        torch.testing.assert_close(start.floor, pre[-1].expand(8))
    if architecture == "jumprelu":
        assert (start.floor == 0.05).all()
    assert (start.values(torch.zeros_like(ones)) == 0).all()


def test_a_count_is_paid_for_by_number_with_a_slope_for_every_latent_that_is_on() -> None:
    start = start_of(planted_sae("topk"), torch.arange(1.0, 49.0))
    shares = torch.linspace(-1, 3, len(start.latents)).requires_grad_()
    price = start.price(shares)
    assert price.item() == pytest.approx(float((shares > 0).float().mean()))
    (slope,) = torch.autograd.grad(price, shares)
    torch.testing.assert_close(slope, (shares > 0).float() / len(shares))


def test_a_vector_at_which_no_latent_fires_is_refused() -> None:
    with pytest.raises(
        SaeflowError, match=r"no latent of the SAE fires .* name other SAEs in tasks"
    ):
        start_of(planted_sae("jumprelu"), torch.zeros(48))


def test_each_planted_latent_alone_does_its_own_task_and_harms_the_others(folder: Path) -> None:
    lm, sae, pairs = planted_model(), planted_sae("topk"), splits()
    codes = {task: compared(folder, "topk", task).codes for task in TASKS}
    tables = look(lm, sae, HOOK, pairs, codes, PROMPTS, VECTORS, CLEANING, 0)
    own = tables.specificity.filter(kind="execution")
    assert (own.filter(pl.col("of") == pl.col("task"))["recovered_low"] > 0.9).all()
    assert (own.filter(pl.col("of") != pl.col("task"))["gain"] < 0).all()
    executing = tables.latents.filter(kind="execution")
    assert executing["latent"].to_list() == list(PLANTED)
    assert (executing["fires_at"] == "separator").all()
    assert (executing["rate"] > executing["elsewhere"]).all()
    assert executing["words"].list.len().to_list() == [5] * 3


def test_latents_of_a_task_that_cleaning_left_nothing_of_are_not_added(folder: Path) -> None:
    lm, sae, pairs = planted_model(), planted_sae("topk"), splits()
    codes = {task: compared(folder, "topk", task).codes for task in TASKS}
    codes["one"] = codes["one"].clear()
    tables = look(lm, sae, HOOK, pairs, codes, PROMPTS, VECTORS, CLEANING, 0)
    assert tables.latents.filter(task="one", kind="detection").height > 0
    assert set(tables.specificity["of"]) == {"two", "three"}
    assert (tables.specificity["amount"] > 0).all()


def test_latents_are_told_where_a_token_spans_the_end_of_every_output(folder: Path) -> None:
    lm, sae = planted_model(), planted_sae("topk")
    joined = PROMPTS.model_copy(update={"template": "{input} -> {output}; "})
    codes = {"one": compared(folder, "topk", "one").codes}
    own = {"one": splits()["one"]}
    tables = look(lm, sae, HOOK, own, codes, joined, VECTORS, CLEANING, 0)
    assert set(tables.firing["place"]) == {"input", "separator"}
    assert set(tables.latents["kind"]) == {"execution"}


def test_sums_of_equal_numbers_stand_beside_the_cleaned_one(folder: Path) -> None:
    curves = compared(folder, "topk", "one").curves
    for method in ("gradient", "orthogonal", "sae"):
        assert curves.filter(method=method)["latents"].to_list() == [1, 4]
    assert curves.filter(method="sae_whole")["latents"].item() == 8
    assert curves.filter(method="mean")["latents"].item() is None


def test_an_sae_whose_codes_are_of_normalised_activations_is_refused() -> None:
    sae = replace(planted_sae(), per_token="layer_norm")
    with pytest.raises(SaeflowError, match=r"normalises each token's activation \(layer_norm\)"):
        start_of(sae, torch.ones(48))
