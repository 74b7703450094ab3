"""Plain words for numbers in metrics files, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Fact(NamedTuple):
    """One line of a list of facts."""

    term: str
    value: str
    note: str = ""


METRICS = {
    "loss": ("Loss on held-out text", "nats per token"),
    "entropy": ("Entropy of the corpus", "nats per token: the loss of a predictor that knows the "
    "grammar"),
    "gap": ("Gap between them", "nats per token, on the same text"),
    "parameters": ("Parameters", ""),
    "explained_variance": ("Explained variance", "share of the variance of activations that it "
    "keeps; 1 is perfect"),
    "l0": ("L0", "latents that are active per token"),
    "loss_clean": ("Loss of the model", "nats per token, untouched"),
    "loss_sae": ("Loss through the SAE", "with its reconstruction in place of the activation"),
    "loss_zero": ("Loss without the activation", "with zero in its place"),
    "loss_mean": ("Loss with the mean activation", "in place of every activation"),
    "recovered": ("Loss recovered", "share of the way from zero to untouched; 1 is perfect"),
    "kl": ("Change of predictions", "nats per token, Kullback-Leibler"),
    "cosine": ("Cosine", "between what it should be and what it is, on average"),
    "l2_ratio": ("Ratio of norms", "of reconstruction to activation"),
    "mse": ("Mean squared error", ""),
    "planted_cosine": ("Cosine with planted features", "of the closest decoder row, on average "
    "over features"),
    "planted_f1": ("F1 on planted features", "of the best latent as a detector, on average over "
    "features"),
    "dead": ("Dead latents", "that never fire on the evaluation text"),
    "dense": ("Dense latents", "that fire on more than a tenth of the tokens"),
    "sparse_probing_1": ("Sparse probing, 1 latent", "accuracy on test rows, over sets"),
    "sparse_probing_2": ("Sparse probing, 2 latents", ""),
    "sparse_probing_5": ("Sparse probing, 5 latents", ""),
    "activation_probing": ("Probing of activations", "the same of all that the SAE reads"),
    "full_absorption": ("Full absorption", "share of words whose letter has no latent of its own "
    "active, and is held by another"),
    "absorption_fraction": ("Absorption", "share of what latents hold of a first letter that is "
    "not the letter's own"),
    "letter_f1": ("F1 on first letters", "of a letter's own latents"),
    "split_latents": ("Latents of a letter", "that are its own, on average"),
    "r2": ("R²", "share of the variance of effects that it predicts, on held-out vectors"),
    "r2_sd": ("Spread of R²", "standard deviation over other held-out vectors"),
    "r2_ceiling": ("Ceiling of R²", "about what noise of the measured effects leaves to be "
    "predicted"),
    "r2_median": ("R² of the median latent", ""),
    "r2_shuffled": ("R² with shuffled vectors", "the control: what chance gives"),
    "top_k_overlap": ("Overlap of the most raised", "share of the most raised latents that were "
    "predicted to be"),
    "penalty": ("Ridge penalty", "chosen on validation vectors"),
}  # fmt: skip
"""Numbers of metrics files that the report shows, in its order: name and explanation."""

SAE_FACTS = {
    "architecture": ("Architecture", "what decides which latents are active"),
    "control": ("Control", "what is random, or near to it, though all else is trained"),
    "d_sae": ("Latents", ""),
    "d_in": ("Width of activations", "d_model"),
    "k": ("k", "latents that may be active at a time"),
    "hook_name": ("Hook", "where it reads"),
    "tokens": ("Training activations", "rows of the cache"),
    "learning_rate": ("Learning rate", "its largest"),
    "batch_size": ("Batch", "activations per step"),
}
"""What the report says of an SAE itself: keys of its settings or of its ``cfg.json``."""


def metric_facts(metrics: dict[str, Any]) -> list[Fact]:
    """The numbers of a metrics file that have a name in words."""
    return [
        Fact(label, readable(metrics[name]), explanation)
        for name, (label, explanation) in METRICS.items()
        if isinstance(metrics.get(name), int | float)
    ]


def readable(value: float) -> str:
    """A number as people read it: thousands apart, three or four digits of a fraction."""
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """``3 h 20 min``, ``8 min``, ``12 s``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def number(value: float | None, digits: int = 2) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(row: Mapping[str, Any], column: str = "product", places: int = 2) -> str:
    """``[0.58, 0.66]``, or nothing where an end is unknown."""
    return brackets(row.get(f"{column}_low"), row.get(f"{column}_high"), places)


def brackets(low: float | None, high: float | None, places: int = 2, sign: str = "") -> str:
    """``[0.58, 0.66]``, or nothing where an end is unknown.

    Where an interval that excludes zero would look as if it did not, its ends are written with the
    first digit that counts: ``[0.0002, 0.12]``.

    Args:
        low, high: the ends.
        places: decimals.
        sign: ``+`` for numbers above zero that shall have one.
    """
    if low is None or high is None:
        return ""
    low_end, high_end = (_beside_zero(end, low, high, places, sign) for end in (low, high))
    return f"[{low_end}, {high_end}]"


def estimate(
    value: float, low: float | None, high: float | None, places: int = 2, sign: str = ""
) -> str:
    """``0.06 [0.0002, 0.12]``, as `brackets` writes an interval; ``0.06`` alone without."""
    if low is None or high is None:
        return f"{value:{sign}.{places}f}"
    return f"{_beside_zero(value, low, high, places, sign)} {brackets(low, high, places, sign)}"


def _beside_zero(value: float, low: float, high: float, places: int, sign: str) -> str:
    rounded = round(value, places) + 0.0  # no -0.00
    if rounded or low <= 0 <= high:
        return f"{rounded:{sign}.{places}f}"
    return f"{value:{sign}.1g}"


def digits(value: float | None, count: int = 4) -> float | None:
    """A number with so many digits that count; None where it is not known."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{count}g}")


class Statistic(NamedTuple):
    """A number that latents are sorted by."""

    name: str
    """Of its column, and what a search calls it."""
    label: str
    explanation: str
    form: str = "number"
    """How it is written: ``number``, ``whole``, ``share`` (stored as its decimal logarithm)."""
