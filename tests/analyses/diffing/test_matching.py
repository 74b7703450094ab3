"""Latents of two SAEs, matched by how they fire together."""

from __future__ import annotations

import json
import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from studies import study_config
from typer.testing import CliRunner

from saeflow.analyses.diffing import OF_PAIR
from saeflow.analyses.diffing.classes import COUNTS
from saeflow.analyses.diffing.command import app
from saeflow.analyses.diffing.matching import MATCHES, Correlation, best_match, match_latents
from saeflow.analyses.diffing.settings import Classes, Matching
from saeflow.analyses.diffing.texts import Text
from saeflow.config.embedded import EMBEDDED
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tales import story_blocks
from saeflow.kinds import check_any_study
from saeflow.models.language_model import load_model
from saeflow.saes.comparison import Seen
from saeflow.saes.io import save_sae
from saeflow.saes.sae import SAE

pytestmark = pytest.mark.usefixtures("one_thread")
HOOK = "blocks.1.hook_resid_post"
RESAMPLED = Classes(draws=100, groups=4)
LATENTS = 12


def text() -> Text:
    """One model, twice."""
    lm = load_model(EMBEDDED)
    tokens = story_blocks(0, "eval", 6, 24).tokens.astype(np.int64)
    return Text([Seen("base", lm, HOOK), Seen("tuned", lm, HOOK)], tokens)


def sae(order: list[int]) -> SAE:
    """Random directions of which a few fire, in some order; the first has two more that never
    do."""
    generator = torch.Generator().manual_seed(1)
    encoder = torch.randn(64, LATENTS, generator=generator) / 8
    x = torch.cat([passed.x[:, 0] for passed in text().passes()])
    b_enc = -(x @ encoder).quantile(0.8, dim=0)
    rows = encoder.T.contiguous()[order]
    return SAE("standard", encoder[:, order], rows, b_enc[order], torch.zeros(64))


def silenced(own: SAE, latents: list[int]) -> SAE:
    """The same with some latents that never fire."""
    b_enc = own.b_enc.clone()
    b_enc[latents] = -1e6
    return SAE("standard", own.W_enc, own.W_dec, b_enc, own.b_dec)


def test_correlations_of_parts_are_those_of_all_rows_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, 5, generator=generator).relu()
    other = (z[:, [2, 0, 1]] + torch.randn(400, 3, generator=generator)).relu()
    z[:, 4] = 0
    measured = Correlation(5, 3)
    for part in range(0, 400, 90):
        measured.add(z[part : part + 90], other[part : part + 90])
    wanted = np.corrcoef(z[:, :4].numpy().T, other.numpy().T)[:4, 4:]
    np.testing.assert_allclose(measured.matrix()[:4], wanted, atol=1e-5)
    assert (measured.matrix()[4] == 0).all()
    assert measured.fired[0].tolist() == (z > 0).sum(0).tolist()


def test_the_match_has_the_largest_sum_of_all_and_leaves_the_silent_out() -> None:
    generator = np.random.default_rng(0)
    correlations = generator.uniform(-1, 1, (5, 4)).astype(np.float32)
    alive = [np.array([True, True, False, True, True]), np.ones(4, bool)]
    match = best_match(correlations, alive, np.zeros_like(correlations))
    rows = [0, 1, 3, 4]
    best = max(correlations[list(order), range(4)].sum() for order in permutations(rows))
    assert match.correlation.sum() == pytest.approx(best, rel=1e-6)
    assert sorted(match.base) == rows
    assert sorted(match.tuned) == [0, 1, 2, 3]
    np.testing.assert_allclose(match.largest[0], correlations.max(1))
    np.testing.assert_allclose(match.largest[1], correlations.max(0))


def test_where_correlations_are_alike_directions_decide() -> None:
    order = np.random.default_rng(2).permutation(6)
    cosines = np.eye(6, dtype=np.float32)[order]
    match = best_match(np.ones((6, 6), np.float32), [np.ones(6, bool)] * 2, cosines)
    assert match.tuned.tolist() == order.tolist()
    assert match.cosine.min() == 1


def test_an_sae_and_the_same_in_another_order_are_shared_latent_by_latent() -> None:
    order = np.random.default_rng(1).permutation(LATENTS).tolist()
    own = sae(list(range(LATENTS)))
    table, counts = match_latents([own, sae(order)], text(), Matching(), RESAMPLED, 0)
    assert dict(table.schema) == MATCHES
    assert dict(counts.schema) == COUNTS
    assert [order[latent] for latent in table["tuned_latent"]] == table["base_latent"].to_list()
    assert table["correlation"].min() == pytest.approx(1, abs=1e-4)
    assert table["low"].min() == pytest.approx(1, abs=1e-4)
    assert table["cosine"].min() == pytest.approx(1, abs=1e-6)
    assert table["sure"].min() == 1
    shared = counts.filter(pl.col("class") == "shared").row(0, named=True)
    assert (shared["count"], shared["low"], shared["high"]) == (LATENTS, LATENTS, LATENTS)


def test_latents_beyond_the_pairs_are_told_without_saying_how_sure_that_is() -> None:
    every = list(range(LATENTS))
    table, _ = match_latents([sae(every), sae(every[:10])], text(), Matching(), RESAMPLED, 0)
    alone = table.filter(pl.col("tuned_latent").is_null())
    assert alone["base_latent"].to_list() == [10, 11]
    assert alone["sure"].null_count() == 2
    assert table["sure"].drop_nulls().to_list() == [1.0] * 10


def test_a_text_of_one_block_tells_pairs_and_not_how_sure_they_are() -> None:
    own, block = sae(list(range(LATENTS))), text()
    block = block._replace(tokens=block.tokens[:1])
    table, counts = match_latents([own, own], block, Matching(), RESAMPLED, 0)
    pairs = table.drop_nulls(["base_latent", "tuned_latent"])
    assert len(pairs) > 4
    for name in ("sure", "low", "high"):
        assert pairs[name].null_count() == len(pairs), name
    assert counts["low"].null_count() == counts["high"].null_count() == len(counts)


def test_latents_that_one_sae_lacks_are_of_the_other_model_alone() -> None:
    whole = sae(list(range(LATENTS)))
    few = silenced(whole, [3, 7])
    table, counts = match_latents([few, whole], text(), Matching(), RESAMPLED, 0)
    left = table.filter(pl.col("tuned_latent").is_in([3, 7]))
    assert left["base_latent"].null_count() == left["low"].null_count() == 2
    assert left["density_tuned"].min() > 0
    # Their likes in the other SAE are matched with their own.
    assert left["class"].to_list() == ["split", "split"]
    assert left["correlation"].to_list() == pytest.approx([0.681, 0.401], abs=1e-3)
    strict = Matching(shared=0.9, exclusive=0.5)
    sure, counted = match_latents([few, whole], text(), strict, RESAMPLED, 0)
    names = dict(sure.drop_nulls("tuned_latent").select("tuned_latent", "class").iter_rows())
    assert (names[3], names[7]) == ("split", "tuned_only")
    assert counted.filter(pl.col("class") == "tuned_only")["count"].to_list() == [1]
    dead = table.filter(pl.col("class") == "dead")
    assert dead["base_latent"].to_list() == [3, 7]
    by_class = dict(counts.select("class", "count").iter_rows())
    assert by_class == {
        "shared": LATENTS - 2, "leaning": 0, "split": 2, "base_only": 0, "tuned_only": 0, "dead": 2
    }  # fmt: skip


def test_latents_of_texts_that_have_nothing_to_do_with_each_other_are_not_matched() -> None:
    generator = torch.Generator().manual_seed(5)
    z = (torch.rand(4_000, 2, 8, generator=generator) < 0.1).float()
    measured = Correlation(8, 8)
    measured.add(z[:, 0], z[:, 1])
    match = best_match(measured.matrix(), [np.ones(8, bool)] * 2, np.zeros((8, 8), np.float32))
    assert match.correlation.max() < 0.1


def test_the_command_writes_both_tables(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "base")
    shutil.copytree(EMBEDDED, tmp_path / "tuned")
    for name in ("own", "other"):
        save_sae(tmp_path / name, sae(list(range(LATENTS))))
    save_blocks(tmp_path / "eval.safetensors", story_blocks(0, "eval", 4, 24))
    words = [f"--model={tmp_path / name}" for name in ("base", "tuned")]
    words += [f"--sae={tmp_path / name}" for name in ("own", "other")]
    words += [f"--classes={json.dumps({'groups': 2, 'draws': 100})}", "--activations={}"]
    words += [f"--corpus={tmp_path / 'eval.safetensors'}", f"--hook={HOOK}", "--settings={}"]
    words += [f"--output={tmp_path / OF_PAIR[0]}", f"--counts={tmp_path / OF_PAIR[1]}"]
    done = CliRunner().invoke(app, ["match", *words, "--seed=0"])
    assert done.exit_code == 0, done.output
    assert pl.read_parquet(tmp_path / "latents.parquet")["class"].unique().to_list() == ["shared"]
    assert pl.read_parquet(tmp_path / "classes.parquet")["count"].max() == LATENTS


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (["main", "x"], r"pairs.both.1: there is no SAE 'x'"),
        (["main", "across"], r"pairs.both.1: 'across' is a crosscoder, and latents of SAEs"),
        (["other", "main"], r"pairs.both.0: 'other' reads 'taught', not the base, lm"),
        (["main", "late"], r"pairs.both: 'main' reads blocks.1.*, 'late' blocks.0"),
        (["main"], "at least 2"),
    ],
)
def test_saes_that_cannot_be_matched_are_told_before_any_job(pair: list[str], reason: str) -> None:
    values = study_config("minimal")
    core = {key: values[key] for key in ("study", "corpus", "model", "hook", "saes")}
    train = {"architecture": "batchtopk", "d_sae": 90}
    saes = {
        "other": {"model": "taught", "train": train},
        "late": {"model": "taught", "hook": "blocks.0.hook_resid_post", "train": train},
        "across": {"models": ["lm", "taught"], "train": train},
    }
    taught = {"name": "taught", "tune": {"path": "workflow/organisms/refuses-cooking.yaml"}}
    asked = {"matching": {"pairs": {"both": pair}}}
    study = core | {"models": [taught], "saes": core["saes"] | saes, "diffing": asked}
    with pytest.raises(Exception, match=reason):
        check_any_study(study)
