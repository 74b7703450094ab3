"""Plausible tables of probes that were never fitted, for the tests of figures and report."""

from __future__ import annotations

import numpy as np
import polars as pl

from saeflow.analyses.probing.basis import BASIS
from saeflow.analyses.probing.design import RESULTS
from saeflow.analyses.probing.quality import SAES
from saeflow.analyses.probing.settings import Comparison
from saeflow.analyses.probing.summary import compare, quiver, summarise
from saeflow.analyses.probing.tables import SETS

NAMES = ("sst2", "cola", "spam")
SKIPPED = "flat"
METHODS = (
    ("activations", "blocks.1.hook_resid_post", "logistic_ridge", 0, 0.9),
    ("activations", "blocks.1.hook_resid_post", "mean_difference", 0, 0.86),
    ("latents", "main", "sparse", 1, 0.7),
    ("latents", "main", "sparse", 16, 0.84),
    ("random_latents", "main", "sparse", 1, 0.6),
    ("random_latents", "main", "sparse", 16, 0.75),
    ("random_projections", "blocks.1.hook_resid_post", "projections", 1, 0.55),
    ("random_projections", "blocks.1.hook_resid_post", "projections", 16, 0.7),
    ("surface", "", "logistic_ridge", 0, 0.58),
)
REGIMES = (("full", 0.0), ("scarcity", 8.0), ("scarcity", 64.0), ("imbalance", 0.1), ("noise", 0.3))


def results() -> pl.DataFrame:
    """Activations are ahead of latents, latents of what is random; less so in harder regimes."""
    generator = np.random.default_rng(3)
    rows = []
    for name in NAMES:
        for regime, level in REGIMES:
            harm = {"full": 0.0, "scarcity": 1 / level if level else 0, "noise": level / 2}.get(
                regime, 0.05
            )
            for kind, of, method, k, area in METHODS:
                if regime != "full" and kind not in ("activations", "latents"):
                    continue
                for seed in range(5):
                    for test_set in ["", "far"] if regime == "full" and name == "sst2" else [""]:
                        auc = float(
                            np.clip(
                                area - harm - 0.1 * bool(test_set) + generator.normal(0, 0.01), 0, 1
                            )
                        )
                        rows.append(
                            (
                                name,
                                regime,
                                level,
                                seed,
                                test_set,
                                kind,
                                of,
                                method,
                                k,
                                1.0,
                                auc + 0.01,
                                auc,
                                300,
                                100,
                            )
                        )
    return pl.DataFrame(rows, schema=RESULTS, orient="row")


def tables() -> dict[str, pl.DataFrame]:
    """The summaries by their paths."""
    every = results()
    chosen = quiver(every)
    rows = [
        {
            "set": name,
            "test_set": "",
            "task": "whether it is",
            "licence": "own",
            "classes": "no, yes",
            "rows": 400,
            "repeated": 3,
        }
        for name in NAMES
    ]
    rows.append(
        {
            "set": SKIPPED,
            "test_set": "",
            "rows": 0,
            "skipped": "has one class only ('yes', 20 rows)",
        }
    )
    basis = [
        {
            "set": "sst2",
            "sae": "main",
            "class": "yes",
            "rank": 1,
            "latent": 7,
            "seeds": 5,
            "difference": 0.4,
            "auc": 0.8,
            "active": 0.6,
            "active_other": 0.1,
            "token": "<b>",
            "token_share": 0.9,
            "surface": "tokens",
            "correlation": 0.2,
            "suspicious": "90% of its firings are at the token '<b>'",
        }
    ]
    scores = [
        {
            "sae": "main",
            "kind": "sae",
            "architecture": "topk",
            "control": "frozen_decoder",
            "seeds": 1,
            "se_over": "splits",
            "sparse_probing_1": 0.61,
            "sparse_probing_1_se": 0.02,
            "activation_probing": 0.83,
            "full_absorption": 0.07,
        }
    ]
    return {
        "probing/summary.parquet": summarise(every, 0.95),
        "probing/differences.parquet": compare(every, chosen, Comparison(draws=200), 0),
        "probing/quiver.parquet": chosen,
        "probing/sets.parquet": pl.DataFrame(rows, schema=SETS),
        "probing/basis.parquet": pl.DataFrame(basis, schema=BASIS),
        "probing/saes.parquet": pl.DataFrame(scores, schema=SAES),
    }
