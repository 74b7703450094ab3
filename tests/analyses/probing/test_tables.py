"""From labelled texts through a model to rows, with what is wrong with a set told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from checkout import ROOT

from saeflow.analyses.probing.basis import BASIS
from saeflow.analyses.probing.design import RESULTS
from saeflow.analyses.probing.io import load_representations
from saeflow.analyses.probing.reading import represent
from saeflow.analyses.probing.rows import ROWS
from saeflow.analyses.probing.settings import Comparison, Fitting, Reading, Regimes
from saeflow.analyses.probing.tables import SETS, Readers, probe_rows, write_rows, write_summaries
from saeflow.config.sections.labelled import LabelledTexts
from saeflow.errors import SaeflowError
from saeflow.models.language_model import LanguageModel, load_model
from saeflow.models.running import capture
from saeflow.saes.sae import SAE
from saeflow.tables import read_table

HOOK = "blocks.0.hook_resid_post"


def silent(_: str) -> Callable[[int, int], None]:
    return lambda done, total: None


STORIES = pl.read_csv(ROOT / "workflow/labelled/tales.csv")["text"].to_list()


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model(ROOT / "src/saeflow/models/tales-lm")


@pytest.fixture(scope="module")
def readers(lm: LanguageModel) -> Readers:
    torch.manual_seed(0)
    W = torch.randn(lm.d_model, 64)
    sae = SAE(
        "topk", W, W.T / W.norm(dim=0)[:, None], torch.zeros(64), torch.zeros(lm.d_model), k=4
    )
    return Readers(lm, [HOOK], {"main": (HOOK, sae)})


def a_set(labels: list[str], texts: list[str]) -> LabelledTexts:
    examples = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=False)]
    return LabelledTexts.model_validate({"examples": examples})


def test_rows_are_what_the_model_and_the_sae_give_for_each_text_alone(readers: Readers) -> None:
    tokens = [[0, 5, 6, 7], [0, 3], [0, 9, 8, 7], [0, 4, 4, 4, 4, 2]]
    for position, pool in (("last", "mean"), ("all", "mean"), ("all", "max")):
        reading = Reading(position=position, pool=pool)
        rows = represent(readers.lm, tokens, reading, [HOOK], readers.saes)
        for place, ids in enumerate(tokens):
            whole = capture(readers.lm, torch.tensor([ids]), [HOOK])[HOOK][0]
            seen = whole[-1:] if position == "last" else whole[1:]
            latents = readers.saes["main"][1].encode(seen)
            merged = [x.mean(0) if pool == "mean" else x.amax(0) for x in (seen, latents)]
            np.testing.assert_allclose(rows.activations[HOOK][place], merged[0], atol=1e-5)
            np.testing.assert_allclose(
                rows.latents["main"][[place]].toarray()[0], merged[1], atol=1e-5
            )


def test_sets_that_tell_nothing_are_told_and_skipped_and_the_others_probed(
    readers: Readers, tmp_path: Path
) -> None:
    labels = ["no", "yes"] * 40
    sets = {
        "good": a_set(labels, STORIES),
        "flat": a_set(["yes"] * 20, STORIES),
        "seven": a_set(["no", "yes"] * 3 + ["no"], STORIES),
        "same": a_set(labels, STORIES[:1] * 80),
        "long": a_set(labels, [f"{story} {STORIES[0] * 3}" for story in STORIES]),
    }
    write_rows(tmp_path, sets, {}, readers, Reading(context=16), 0, silent)
    rows = {row["set"]: row for row in read_table(tmp_path / "sets.parquet", SETS).to_dicts()}
    assert rows["good"]["skipped"] is None
    assert rows["good"]["rows"] == 80
    assert "has one class only ('yes', 20 rows)" in rows["flat"]["skipped"]
    assert "has 7 rows, 3 of them of the class 'yes'" in rows["seven"]["skipped"]
    assert rows["same"]["contradictory"] == 80
    assert "once texts are cut and cleared" in rows["same"]["skipped"]
    assert "once texts are cut" in rows["long"]["skipped"]  # all end alike: nothing is left to tell
    outputs = []
    fitting = Fitting(
        k=[1, 4], strengths=[0.1], activations=["logistic_ridge"], binarised=[], lasso=False
    )
    regimes = Regimes(scarcity=[8], imbalance=[], noise=[], k=[1])
    for name in ("good", "flat"):
        ends = ("results", "basis", "accuracy")
        outputs.append(tuple(tmp_path / f"{name}/{end}.parquet" for end in ends))
        places = (tmp_path / name / "rows.parquet", tmp_path / name / "rows.safetensors")
        probe_rows(name, *places, fitting, regimes, {"main": HOOK}, 0, outputs[-1], silent(""))
    assert read_table(outputs[1][0], RESULTS).is_empty()
    assert not read_table(outputs[0][1], BASIS).is_empty()
    write_summaries(
        tmp_path, [out[0] for out in outputs], [out[1] for out in outputs], Comparison(draws=100), 0
    )
    full = pl.read_parquet(tmp_path / "differences.parquet").filter(regime="full")
    assert set(full["kind"]) == {
        "latents",
        "random_latents",
        "random_projections",
        "surface",
        "quiver",
    }
    with pytest.raises(SaeflowError, match=r"every set is skipped, as probing/sets.csv says"):
        write_summaries(tmp_path, [outputs[1][0]], [outputs[1][1]], Comparison(), 0)


def test_texts_that_are_cut_are_counted_and_a_shifted_set_keeps_out_what_was_trained_on(
    readers: Readers, tmp_path: Path
) -> None:
    long = [f"{STORIES[0] * 3} {story}" for story in STORIES[:60]]
    rows: Any = [{"text": text, "label": ["no", "yes"][i % 2]} for i, text in enumerate(long)]
    shifted = {"examples": [*rows[:10], {"text": STORIES[99], "label": "yes"}]}
    texts = LabelledTexts.model_validate({"examples": rows, "shifted": {"far": shifted}})
    write_rows(tmp_path, {"long": texts}, {}, readers, Reading(context=20), 0, silent)
    own, far = read_table(tmp_path / "sets.parquet", SETS).to_dicts()
    assert own["truncated"] == own["rows"]
    assert (far["test_set"], far["rows"]) == ("far", 1)
    table = read_table(tmp_path / "long/rows.parquet", ROWS)
    assert table["tokens"].max() == 20
    assert load_representations(tmp_path / "long/rows.safetensors").activations[HOOK].shape[
        0
    ] == len(table)
