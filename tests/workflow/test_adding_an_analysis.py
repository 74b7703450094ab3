"""The analysis that docs/adding-an-analysis.md adds, added to a copy of the checkout and run."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from checkout import ROOT
from safetensors.numpy import load_file
from snakemake_runs import Workflow
from studies import TINY

PAGE = ROOT / "docs/adding-an-analysis.md"
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
REGISTRY = "src/saeflow/analyses/__init__.py"
OWN = re.compile(r"(src/saeflow|tests)/analyses/norms/|rules/norms\.smk$")
COMMAND = re.compile(r"^pytest (.+)$", re.MULTILINE)


def blocks():
    return dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


def register(path, texts):
    """Put the two lines into the file, and the imports that they need."""
    line, field = (texts[f"{REGISTRY}: the {what}"] for what in ("tuple", "study"))
    text = path.read_text()
    text = text.replace("from saeflow.analyses import (", "from saeflow.analyses import (norms,", 1)
    text = text.replace(
        "from saeflow.config.section",
        "from saeflow.analyses.norms.settings import Norms\nfrom saeflow.config.section",
        1,
    )
    text = re.sub(r"(ANALYSES = \([^)]*)\)", lambda match: f"{match[1]}{line})", text)
    text = re.sub(
        r"(    steering: Steering \| None = None\n)", lambda match: match[1] + field, text
    )
    path.write_text(text)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with the analysis in it."""
    copy = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    texts = blocks()
    for name, text in texts.items():
        if not name.startswith(REGISTRY):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text(text, encoding="utf-8")
    register(copy / REGISTRY, texts)
    run(copy, "-m", "saeflow.kinds", str(copy))
    return copy


def run(copy, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_file_is_touched_beside_its_own_and_those_that_a_command_writes():
    outside = {name.split(":")[0] for name in blocks() if not OWN.match(name)}
    assert outside == {REGISTRY}


def test_what_holds_of_all_analyses_holds_of_it(checkout):
    done = run(
        checkout,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "norms"),
        *COMMAND.search(PAGE.read_text(encoding="utf-8"))[1].split(),
    )
    assert re.match(r"\.+", done)
    new = [str(checkout / name) for name in blocks() if name.endswith(".py")]
    subprocess.run(["ruff", "check", *new], cwd=checkout, check=True, capture_output=True)
    subprocess.run(
        ["ruff", "format", "--check", *new], cwd=checkout, check=True, capture_output=True
    )


@pytest.mark.slow
def test_it_runs_with_its_table_its_figure_and_its_page(checkout, tmp_path):
    core = ("study", "corpus", "model", "hook", "activations", "saes")
    study = Workflow(tmp_path, {name: TINY[name] for name in core} | {"norms": {}}, base=None)
    study.root = checkout
    study.run()
    folder = study.results / "norms/main"
    W_enc = load_file(study.results / "saes/main/sae_weights.safetensors")["W_enc"]
    norms = pl.read_parquet(folder / "norms.parquet")["norm"].to_numpy()
    np.testing.assert_allclose(norms, np.linalg.norm(W_enc.astype(np.float64), axis=0), rtol=1e-6)
    middle = pl.read_parquet(folder / "quantiles.parquet").filter(quantile=0.5)["norm"].item()
    assert middle == pytest.approx(np.median(norms), rel=1e-6)
    drawn = pl.read_csv(study.results / "figures/encoder_norms.csv")
    assert drawn["sae"].unique().to_list() == ["main"]
    assert len(drawn) == len(norms)
    page = (study.results / "report/norms.html").read_text()
    assert "figures/encoder_norms.svg" in page
    assert '<a href="norms.html"' in (study.results / "report/index.html").read_text()
