"""SAEs of a study side by side: seeds are pooled, everything else stays apart."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from saeflow.config import SAETraining
from saeflow.saes.summary import summarise_saes

HOOK = "blocks.1.hook_resid_post"


def described(hook: str = HOOK, **training: Any) -> dict[str, Any]:
    return {
        "kind": "sae",
        "reads": hook,
        "writes": hook,
        "training": SAETraining(**training).model_dump(),
    }


def test_seeds_are_one_row_with_the_error_of_their_mean_and_everything_else_is_its_own() -> None:
    saes = {f"a-seed-{seed}": described(k=4, seed=seed) for seed in range(3)}
    saes |= {
        "wider": described(k=4, d_sae=1024),
        "sparser": described(k=2),
        "late": described("blocks.3.hook_mlp_out", k=4),
    }
    saes["l1"] = described(architecture="standard", sparsity_coefficient=0.02)
    saes["l1 by default"] = described(architecture="standard")
    saes["from"] = {"kind": "sae", "reads": HOOK, "writes": HOOK, "training": None}
    saes["too"] = {"kind": "sae", "reads": HOOK, "writes": HOOK, "training": None}
    share = {"a-seed-0": 0.5, "a-seed-1": 0.6, "a-seed-2": 0.7}
    metrics = {
        name: {
            "explained_variance": share.get(name, 0.4),
            "explained_variance_se": 0.01,
            "l0": 4,
            "rows": 100,
            "dead": 3,
        }
        for name in saes
    }
    table = summarise_saes(saes, metrics)
    assert table["sae"].to_list() == ["a-seed-0, a-seed-1, a-seed-2", *list(saes)[3:]]
    pooled, *others = table.to_dicts()
    assert (pooled["seeds"], pooled["se_over"], pooled["rows"]) == (3, "seeds", 100)
    assert pooled["explained_variance"] == pytest.approx(0.6)
    assert pooled["explained_variance_se"] == pytest.approx(
        0.1 / 3**0.5
    )  # deviations of -0.1, 0 and 0.1
    assert (pooled["l0_se"], pooled["dead"], pooled["kl"], pooled["kl_se"]) == (
        0.0,
        3.0,
        None,
        None,
    )
    assert {(row["seeds"], row["se_over"], row["explained_variance_se"]) for row in others} == {
        (1, "blocks", 0.01)
    }
    l1 = table.row(by_predicate=pl.col("sae") == "l1", named=True)
    assert (l1["k"], l1["sparsity_coefficient"], l1["architecture"]) == (None, 0.02, "standard")
    assert (
        table.row(by_predicate=pl.col("sae") == "l1 by default", named=True)["sparsity_coefficient"]
        == 0.015
    )
    assert table.row(by_predicate=pl.col("sae") == "from", named=True)["architecture"] == "imported"


def test_a_metric_that_one_seed_lacks_is_not_pooled() -> None:
    saes = {"a": described(seed=0), "b": described(seed=1)}
    (row,) = summarise_saes(saes, {"a": {"l0": 4.0, "kl": 0.1}, "b": {"l0": 6.0}}).to_dicts()
    assert (row["l0"], row["l0_se"], row["kl"]) == (5.0, pytest.approx(1.0), None)
