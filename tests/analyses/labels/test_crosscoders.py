"""Latents of crosscoders get labels from what the comparison of models tells of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from compared_folder import HOOK, write_compared
from studies import study_config
from typer.testing import CliRunner

from saeflow.analyses import diffing
from saeflow.analyses.labels import ANALYSIS, command
from saeflow.analyses.labels.choosing import CHOSEN
from saeflow.analyses.labels.of_crosscoders import decoder_labels, shown_latents
from saeflow.analyses.labels.passages import PASSAGES
from saeflow.analyses.labels.settings import TokenWording
from saeflow.analyses.labels.summary import TABLE
from saeflow.analyses.labels.wording import LABELS
from saeflow.corpora.io import load_blocks
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.models.language_model import load_model
from saeflow.models.running import capture
from saeflow.saes.io import load_of_models

pytestmark = pytest.mark.usefixtures("one_thread")
PASSED = {"window": 8, "quantiles": 2, "shown": 2, "tested": 6, "silent": 6}


def invoke(app: object, *words: str) -> None:
    done = CliRunner().invoke(app, list(words))  # type: ignore[arg-type]
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two models whose crosscoder's latents got labels and scores."""
    from saeflow.analyses.diffing.command import app as compare

    root = write_compared(tmp_path_factory.mktemp("labelled"), bias=-1.5, blocks=40)
    models = [f"--model={root / name}" for name in ("base", "tuned")]
    read = [*models, f"--sae={root / 'sae'}", "--base=base", "--activations={}"]
    read.append(f"--corpus={root / 'eval.safetensors'}")
    classes = json.dumps({"groups": 3, "draws": 100})
    latents, seed = f"--latents={root / 'diffed.parquet'}", "--seed=0"
    counts = f"--counts={root / 'classes.parquet'}"
    table = f"--output={root / 'diffed.parquet'}"
    invoke(compare, "classify", *read, f"--settings={classes}", seed, table, counts)
    shown = json.dumps({"latents": 4, "contexts": 3})
    tables = [f"--{name}={root / name}.parquet" for name in ("decoders", "scatter")]
    places = f"--output={root / 'contexts.parquet'}"
    asked = [f"--settings={shown}", f"--classes={classes}", seed]
    invoke(compare, "contexts", *read, latents, *asked, *tables, places)
    app = command.app
    files = [f"--{name}={root / name}.parquet" for name in ("decoders", "contexts")]
    chosen = root / "chosen.parquet"
    made = [f"--chosen={chosen}", f"--output={root / 'tokens.parquet'}"]
    invoke(app, "from-decoders", latents, *files, "--settings={}", *made)
    passages = root / "passages.parquet"
    asked = [f"--settings={json.dumps(PASSED)}", f"--classes={classes}", seed]
    drawn = [f"--latents={chosen}", "--sae-name=both", f"--output={passages}"]
    invoke(app, "gather-of-models", *read, *asked, *drawn)
    prompts = f"--prompts={Path(__file__).parents[3] / 'workflow/labels/asking.yaml'}"
    scores = f"--settings={json.dumps({'kinds': ['simulation', 'generation'], 'simulated': 4})}"
    tested = [f"--passages={passages}", f"--sae={root / 'sae'}", f"--model={root / 'base'}"]
    written = [f"--output={root / 'scores.parquet'}", f"--answers={root / 'answers.parquet'}"]
    asked = [prompts, "--asked={}", scores, seed]
    invoke(app, "score", str(root / "tokens.parquet"), *tested, *asked, *written)
    invoke(
        app,
        *("join", str(root / "tokens.parquet"), "--sae-name=both", scores, seed),
        f"--scores={root / 'scores.parquet'}",
        *(f"--csv={root / 'labels.csv'}", f"--summary={root / 'summary.parquet'}"),
        f"--output={root / 'labels.parquet'}",
    )
    return root


def test_every_latent_that_is_shown_gets_a_label(labelled: Path) -> None:
    chosen = pl.read_parquet(labelled / "chosen.parquet")
    assert chosen.schema == CHOSEN
    shown = pl.read_parquet(labelled / "decoders.parquet")["latent"].unique()
    assert set(chosen["latent"]) == set(shown)
    labels = pl.read_parquet(labelled / "labels.parquet")
    assert labels.schema == TABLE
    assert labels["latent"].to_list() == chosen["latent"].to_list()
    assert labels["text"].str.contains(r'^predicts ".*" in the base; predicts ".*" in tuned').all()
    assert set(pl.read_parquet(labelled / "scores.parquet")["score"]) == {"simulation"}


def test_passages_hold_what_latents_do_on_both_models_together(labelled: Path) -> None:
    crosscoder = load_of_models(labelled / "sae")
    tokens = torch.from_numpy(load_blocks(labelled / "eval.safetensors").tokens).long()
    streams = [
        capture(load_model(labelled / name), tokens, [HOOK])[HOOK] for name in ("base", "tuned")
    ]
    truth = crosscoder.encode(torch.stack(streams, dim=2).flatten(0, 1))
    truth = truth.unflatten(0, tokens.shape).clone()
    truth[:, 0] = 0  # BOS counts nowhere
    passages = pl.read_parquet(labelled / "passages.parquet")
    assert passages.schema == PASSAGES
    assert set(passages["use"]) == {"shown", "tested", "silent"}
    for row in passages.iter_rows(named=True):
        place = (row["block"], slice(row["start"], row["start"] + 8))
        assert row["token_ids"] == tokens[place].tolist()
        expected = truth[(*place, row["latent"])].numpy()
        np.testing.assert_allclose(row["activations"], expected, rtol=1e-3, atol=1e-4)
        assert (expected.max() > 0) == (row["use"] != "silent")


def test_what_models_predict_alike_is_told_once() -> None:
    rows = [
        ("taught", 3, side, rank, rank, token, 1.0)
        for side in ("base", "tuned")
        for rank, token in enumerate([" sea", " ship"])
    ]
    rows += [("taught", 5, "tuned", 0, 0, " no", 1.0)]
    names = ["model", "latent", "side", "rank", "token_id", "token", "weight"]
    decoders = pl.DataFrame(rows, schema=names, orient="row")
    places = [(3, 0, 1, " boat"), (3, 1, 4, " boat"), (3, 2, 7, " tea"), (5, 0, 2, " a")]
    contexts = pl.DataFrame(places, schema=["latent", "block", "position", "token"], orient="row")
    latents = pl.DataFrame({"latent": [3, 5, 5], "density": [0.1, 0.2, 0.3]})
    chosen = shown_latents(decoders, latents)
    assert chosen["density"].to_list() == [0.1, 0.3]
    labels = decoder_labels(chosen, decoders, contexts, TokenWording())
    assert labels.schema == LABELS
    assert labels["text"].to_list() == [
        'predicts "sea", "ship" in the base and taught; '
        'fires on "boat" (2 of the 3 places where it fires most)',
        'predicts "no" in taught; fires on "a" (1 of the 1 places where it fires most)',
    ]


def study(**labels: object) -> object:
    values = study_config("minimal")
    core = {key: values[key] for key in ("study", "corpus", "model", "hook", "saes")}
    both = {"models": ["lm", "taught"], "train": {"architecture": "batchtopk", "d_sae": 90}}
    tuned = {"name": "taught", "tune": {"path": "workflow/organisms/refuses-cooking.yaml"}}
    core |= {"models": [tuned], "saes": core["saes"] | {"both": both}, "diffing": {}}
    return check_any_study(core | {"labels": labels})


def test_crosscoders_of_a_comparison_are_labelled_by_sources_that_they_have() -> None:
    asked = study(saes=["both"], sources=["tokens", "self", "explainer"])
    own = asked.labels  # type: ignore[attr-defined]
    names = ANALYSIS.names(asked, own)  # type: ignore[arg-type]
    assert names["labelled_sae"] == names["labelled_crosscoder"] == ["both"]
    assert diffing.crosscoders(asked, asked.diffing) == ["both"]  # type: ignore[attr-defined, arg-type]
    with pytest.raises(SaeflowError, match="'both' reads several models and hooks"):
        study(saes=["both"], sources=["self"])
    with pytest.raises(SaeflowError, match=r"set examples: \{\}"):
        study(sources=["tokens"])
