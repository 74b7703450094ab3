"""Plausible tables of decompositions, for the tests of figures."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl


def curves() -> pl.DataFrame:
    """Errors that fall faster for a direction than for those that mean nothing."""
    kinds = [("love", "direction", 0.7), ("", "random", 0.95), ("love", "shuffled", 0.9)]
    rows = []
    for method in ("orthogonal", "gradient_positive", "encoder"):
        for direction, kind, base in kinds if method != "encoder" else kinds[:1]:
            for k in range(1, 9):
                error, cosine = base**k, float(np.sqrt(1 - base**k))
                band = [None] * 4 if kind == "direction" else [0.9 * error, 1.1 * error, 0, 1]
                values = [error, *band[:2], cosine, *band[2:], 1 if kind == "direction" else 50]
                rows.append(("main", direction, kind, method, k, *values))
    columns = ["sae", "direction", "kind", "method", "k", "error", "error_low", "error_high"]
    columns += ["cosine", "cosine_low", "cosine_high", "draws"]
    return pl.DataFrame(rows, schema=columns, orient="row", strict=False)


def fidelity() -> pl.DataFrame:
    """Two trainings, of which one saw the concept."""
    rows = [
        {
            "saes": saes,
            "direction": "love",
            "seeds": 3,
            "over": "seeds",
            "repeated_cosine": 0.97,
            "cosine": cosine,
            "cosine_low": cosine - 0.04,
            "cosine_high": cosine + 0.02,
            "error": 1 - cosine**2,
            "best_cosine": cosine - 0.1,
            "null_cosine": 0.4,
            "best_density": 0.01,
            "concept_share": None,
        }
        for saes, cosine in (("with", 0.9), ("without", 0.6))
    ]
    return pl.DataFrame(rows)


def along() -> pl.DataFrame:
    """The error of two trainings with three seeds, and of an SAE alone."""
    rows = []
    for saes, base in (("with", 0.6), ("without", 0.8), ("imported", 0.7)):
        for k in range(1, 9):
            error = base**k
            band = (None, None) if saes == "imported" else (0.9 * error, 1.1 * error)
            rows.append((saes, "love", k, error, *band, 1 if saes == "imported" else 3))
    columns = ["saes", "direction", "k", "error", "error_low", "error_high", "seeds"]
    return pl.DataFrame(rows, schema=columns, orient="row", strict=False)


def edits() -> pl.DataFrame:
    """The more latents, the more like the whole direction; sums for random ones do nothing."""
    rows = []
    for label, usual, moved in (("cooking", 6.0, -8.0), ("other", -9.0, 3.0)):
        values = [("none", "whole", None, usual)]
        for edit in ("ablate", "add"):
            values.append((edit, "whole", None, moved))
            for kind, k in product(("sum", "random"), (1, 4, 16)):
                share = k / (k + 2) if kind == "sum" else 0.02
                values.append((edit, kind, k, usual + share * (moved - usual)))
        for edit, kind, latents, value in values:
            place = {"sae": "main", "model": "taught", "direction": "refusal", "label": label}
            what = {"edit": edit, "kind": kind, "latents": latents, "measure": "log_odds"}
            numbers = {"value": value, "low": value - 0.5, "high": value + 0.5, "n": 24}
            rows.append(place | what | numbers)
    return pl.DataFrame(rows)


def tables() -> dict[str, pl.DataFrame]:
    """By their paths, as figures read them."""
    return {
        "decomposition/{decomposed_sae}/curves.parquet": curves(),
        "decomposition/fidelity.parquet": fidelity(),
        "decomposition/curves.parquet": along(),
        "decomposition/{decomposed_sae}/{measured_model}/{measured_direction}/edits.parquet": edits(),
    }
