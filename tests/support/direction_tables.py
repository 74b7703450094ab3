"""Plausible tables of directions, for the tests of figures and pages."""

from __future__ import annotations

from itertools import product

import polars as pl

MODELS, DIRECTIONS, LABELS = ("base", "taught"), ("refusal", "topic"), ("cooking", "other")
POSITIONS, LAYERS = ("template[-2]", "template[-1]"), range(6)


def candidates() -> pl.DataFrame:
    """The deeper, the more is left; the last position is the best."""
    rows = []
    for model, direction in product(MODELS, DIRECTIONS):
        for p, position in enumerate(POSITIONS):
            for layer in LAYERS:
                ablated = layer - 3.0 - 2 * p if layer else None
                rows.append(
                    {
                        "model": model,
                        "direction": direction,
                        "position": position,
                        "layer": layer,
                        "norm": 2.0 + layer,
                        "activation_norm": 20.0,
                        "norm_shuffled": 0.5,
                        "stability": 0.97,
                        "stability_low": 0.94,
                        "split_half": 0.9,
                        "split_half_shuffled": 0.02,
                        "auc": 0.97,
                        "auc_low": 0.9,
                        "auc_high": 0.99,
                        "auc_shuffled": 0.61,
                        "gap": 2.0 + layer,
                        "ablated": ablated,
                        "added": 1.5,
                        "divergence": 0.03 * (1 + layer),
                        "unedited_on": 4.0,
                        "unedited_off": -6.0,
                        "why_not": None,
                        "chosen": p == 1 and layer == 1,
                        "within_rule": model == "taught",
                    }
                )
    return pl.DataFrame(rows)


def _measured(edit: str, kind: str, scale: float, label: str) -> dict[str, float]:
    own = kind == "direction"
    raised = scale > 0.4 if edit == "add" and own else label == "cooking"
    shows = 0.05 if edit == "ablate" and own else 0.95 * raised
    return {
        "phrases": shows,
        "log_odds": 8 * shows - 4,
        "kl_first": 0.1 * (edit != "none"),
        "kl_token": 0.02 + scale**2 / 4,
    }


def edits() -> pl.DataFrame:
    """Ablation lowers what addition raises; controls do neither."""
    tried = [("none", "direction", 0.0), ("ablate", "direction", 0.0)]
    tried += [("add", "direction", scale) for scale in (0.5, 1.0, 1.5)]
    tried += [
        (edit, kind, scale)
        for kind in ("random", "shuffled", "candidate")
        for edit, scale in (("ablate", 0.0), ("add", 1.0))
    ]
    rows = [
        {
            "model": model,
            "direction": direction,
            "edit": edit,
            "kind": kind,
            "scale": scale,
            "label": label,
            "measure": measure,
            "value": value,
            "low": value - 0.05,
            "high": value + 0.05,
            "n": 40,
        }
        for model, direction in product(MODELS, DIRECTIONS)
        for edit, kind, scale in tried
        for label in LABELS
        for measure, value in _measured(edit, kind, scale, label).items()
        if measure != "kl_token" or label == "other"
    ]
    losses = [
        {
            "model": model,
            "direction": direction,
            "edit": edit,
            "kind": kind,
            "scale": scale,
            "label": None,
            "measure": measure,
            "value": value,
            "low": value - 0.05,
            "high": value + 0.05,
            "n": 16,
        }
        for model, direction in product(MODELS, DIRECTIONS)
        for edit, kind, scale in tried
        for measure, value in (("loss", 2.9 + scale), ("loss_increase", scale))
    ]
    return pl.DataFrame([*rows, *losses])


def transfer() -> pl.DataFrame:
    """Each model's direction works in itself."""
    rows = [
        {
            "model": model,
            "source": source,
            "direction": direction,
            "edit": edit,
            "kind": "direction",
            "scale": float(edit == "add"),
            "label": label,
            "measure": measure,
            "value": value,
            "low": value - 0.2,
            "high": value + 0.2,
            "n": 40,
        }
        for model, source, direction in product(MODELS, MODELS, DIRECTIONS)
        for edit, change in (("none", 0.0), ("ablate", -5.0), ("add", 4.0))
        for label in LABELS
        for measure, value in (
            ("log_odds", 1.0 + change * (model == source)),
            ("phrases", 0.5 + change / 20),
        )
    ]
    return pl.DataFrame(rows)


def angles() -> pl.DataFrame:
    """Two models whose directions part with depth."""
    rows = [
        {
            "model": model,
            "source": source,
            "direction": "refusal",
            "layer": layer,
            "position": position,
            "cosine": None if position is None else 1 - layer / 10,
            "smallest_angle": 5.0 if position is None else None,
            "largest_angle": 40.0 if position is None else None,
        }
        for model, source in (MODELS, MODELS[::-1])
        for layer in LAYERS
        for position in (*POSITIONS, None)
    ]
    return pl.DataFrame(rows)


def tables() -> dict[str, pl.DataFrame]:
    """By their paths, as figures read them."""
    own = "directions/{directed_model}"
    return {
        f"{own}/{{direction}}/candidates.parquet": candidates(),
        f"{own}/{{direction}}/edits.parquet": edits(),
        f"{own}/transfer.parquet": transfer(),
        f"{own}/angles.parquet": angles(),
    }
