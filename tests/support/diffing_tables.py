"""Plausible tables of compared models, for the tests of figures and pages."""

from __future__ import annotations

import numpy as np
import polars as pl

from saeflow.analyses.diffing.words import CLASSES

MODEL, SAE = "taught", "both"
COUNTS = dict(zip(CLASSES, (60, 4, 5, 6, 3, 2, 0, 0, 10), strict=True))
RELATIVE = dict(zip(CLASSES, (0.5, 0.2, 0.03, 0.97, 0.98, 0.02, 0.5, 0.5, 0.5), strict=True))


def divergence() -> pl.DataFrame:
    """A tenth of a nat, more at the first position."""
    rows = [("kl", None, 0.1), ("kl", 1, 0.3), ("kl_reverse", None, 0.12)]
    rows += [("loss_base", None, 2.2), ("loss_tuned", None, 2.4)]
    return pl.DataFrame(
        [(MODEL, *row, row[2] - 0.05, row[2] + 0.05, 500) for row in rows],
        schema=["model", "measure", "position", "value", "low", "high", "n"],
        orient="row",
    )


def places() -> pl.DataFrame:
    """Where one of them refuses."""
    row = (MODEL, 0, 6.1, 3, 9, "the bride <said>", " yes", "' yes' 0.80", "'No' 0.97")
    names = ["rank", "kl", "block", "position", "before", "next", "base_says", "tuned_says"]
    return pl.DataFrame([row], schema=["model", *names], orient="row")


def tokens() -> pl.DataFrame:
    """One token after which most of it lies."""
    names = ["model", "token_id", "token", "kl", "count", "share"]
    return pl.DataFrame([(MODEL, 7, ",", 0.9, 40, 0.5)], schema=names, orient="row")


def differences() -> pl.DataFrame:
    """Two positions, and all."""
    names = ["model", "position", "norm", "base_norm", "relative", "split_half", "n"]
    rows = [(MODEL, place, 1.0, 10.0, 0.1, 0.98, 64) for place in (1, 2, None)]
    return pl.DataFrame(rows, schema=names, orient="row")


def components() -> pl.DataFrame:
    """Two, of falling variance."""
    names = ["model", "component", "variance", "share", "cosine"]
    rows = [(MODEL, 0, 2.0, 0.5, 0.1), (MODEL, 1, 1.0, 0.25, -0.2)]
    return pl.DataFrame(rows, schema=names, orient="row")


def lens() -> pl.DataFrame:
    """What mean differences and components raise."""
    names = ["model", "kind", "number", "side", "rank", "token_id", "token", "weight"]
    kinds = [("position", n) for n in range(3)] + [("component", n) for n in range(2)]
    rows = [
        (MODEL, *kind, side, rank, rank, f" word{rank}", 1.0 - rank)
        for kind in kinds
        for side in ("raised", "lowered")
        for rank in range(3)
    ]
    return pl.DataFrame(rows, schema=names, orient="row")


def weights() -> pl.DataFrame:
    """Later layers moved more."""
    names = ["model", "parameter", "layer", "module", "numbers", "base_norm", "difference_norm"]
    rows = [
        (MODEL, f"layers.{n}.mlp.{part}.weight", n, f"layers.mlp.{part}.weight", 64, 8.0, 0.1 * n)
        for n in range(4)
        for part in ("up", "down")
    ]
    table = pl.DataFrame(rows, schema=names, orient="row")
    return table.with_columns(relative=pl.col("difference_norm") / pl.col("base_norm"))


def steered() -> pl.DataFrame:
    """The difference brings about what random directions do not."""
    rows = [
        (each, kind, scale, measure, value, value - 0.1, value + 0.1, 8)
        for each in ("lm", MODEL)
        for kind, scale, own in (("none", 0.0, -0.5), ("difference", 0.5, 1.5), ("random", 0.5, 0))
        for measure, value in (("evidence", own), ("loss_base", 2.0))
    ]
    names = ["model", "kind", "scale", "measure", "value", "low", "high", "n"]
    return pl.DataFrame(rows, schema=names, orient="row")


def continuations() -> pl.DataFrame:
    """A text of either model."""
    names = ["model", "kind", "scale", "prompt", "text", "continuation", "tokens", "evidence"]
    rows = [
        (each, kind, scale, 0, "The girl", f" of {each} & all", 6, 0.1)
        for each in ("lm", MODEL)
        for kind, scale in (("none", 0.0), ("difference", 0.5))
    ]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(loss_base=pl.lit(2.0))


def latents() -> pl.DataFrame:
    """So many of each class."""
    rows = [
        {"class": name, "relative_norm": np.clip(RELATIVE[name] + 0.01 * (n % 5 - 2), 0, 1)}
        for name, count in COUNTS.items()
        for n in range(count)
    ]
    table = pl.DataFrame(rows).with_row_index("latent").with_columns(pl.col("latent").cast(int))
    return table.with_columns(
        model=pl.lit(MODEL),
        sure=pl.lit(0.97),
        density=pl.lit(0.01),
        cosine=pl.lit(0.9),
        contribution=1.0 / (1 + pl.col("latent")),
    )


def classes() -> pl.DataFrame:
    """How many there are."""
    rows = [
        (MODEL, name, n, n - 0.5, n + 1.0, 0.01 if n else None, 0.9 if n else None, float(n))
        for name, n in COUNTS.items()
    ]
    names = ["model", "class", "count", "low", "high", "density", "cosine", "contribution"]
    return pl.DataFrame(rows, schema=names, orient="row")


def causal() -> pl.DataFrame:
    """Latents recover more than random directions, the whole everything."""
    parts = [("none", None, 0, 0.0), ("everything", None, 0, 1.0), ("latents", None, 0, 0.8)]
    parts += [("bias", None, 0, 0.05), ("error", None, 0, 0.2), ("mean_difference", None, 0, 0.1)]
    parts += [("base_model", None, 0, None), ("stream_in_base", None, 0, None)]
    for name, count in COUNTS.items():
        if count and name != "dead":
            parts += [("class", name, count, 0.3), ("random", name, count, 0.02)]
    for number in (1, 4, 16):
        parts.append(("largest", None, number, 0.1 * number**0.7))
        parts.append(("random", None, number, -0.01 * number**0.5))
    parts.append(("single", None, 1, 0.2))
    places = [(None, None, 1.0), ("on", "template[-2]", 0.5), ("on", "template[-1]", 1.5)]
    places += [("off", "template[-2]", 0.1), ("off", "template[-1]", 0.2)]
    rows = [
        (MODEL, of, position, *part[:3], 0.1 * kl, 0.05, 0.2,
         *(None if part[3] is None else part[3] + shift for shift in (0.0, -0.05, 0.05)), 32)
        for of, position, kl in places
        for part in parts
    ]  # fmt: skip
    names = ["model", "of", "position", "kind", "name", "number", "kl", "kl_low", "kl_high"]
    names += ["recovered", "recovered_low", "recovered_high", "n"]
    return pl.DataFrame(rows, schema=names, orient="row")


def scatter() -> pl.DataFrame:
    """One latent that both hold, and one of the compared model."""
    rows = [
        (MODEL, latent, 1.0 + n / 20, (1.0 + n / 20) * share, 1.0 + n / 20)
        for latent, share in ((0, 1.0), (1, 0.0))
        for n in range(20)
    ]
    names = ["model", "latent", "activation", "activation_base", "activation_tuned"]
    return pl.DataFrame(rows, schema=names, orient="row")


def matched_latents() -> pl.DataFrame:
    """Two that are matched, and one of each model alone."""
    rows = [
        (MODEL, "shared", 1.0, 3, 5, 0.9, 0.8, 0.95, 0.01, 0.02, 0.99),
        (MODEL, "leaning", 0.8, 4, 6, 0.3, 0.2, 0.4, 0.01, 0.02, 0.5),
        (MODEL, "base_only", 1.0, 1, None, 0.1, 0.0, 0.15, 0.01, None, None),
        (MODEL, "tuned_only", 1.0, None, 2, 0.1, 0.0, 0.15, None, 0.02, None),
    ]
    names = ["model", "class", "sure", "base_latent", "tuned_latent", "correlation", "low", "high"]
    names += ["density_base", "density_tuned", "cosine"]
    return pl.DataFrame(rows, schema=names, orient="row")


def matched_classes() -> pl.DataFrame:
    """How many there are."""
    counts = {"shared": 1, "leaning": 1, "split": 0, "base_only": 1, "tuned_only": 1, "dead": 0}
    rows = [(MODEL, name, n, 0.0, 2.0, 0.01, 0.9, None) for name, n in counts.items()]
    names = ["model", "class", "count", "low", "high", "density", "cosine", "contribution"]
    return pl.DataFrame(rows, schema=names, orient="row")


def contexts() -> pl.DataFrame:
    """Two places of two latents."""
    rows = [
        (MODEL, latent, rank, 2.0 - rank, 0.0, 2.1, rank, 5, "and I <b>", " answered")
        for latent in (0, 1)
        for rank in range(2)
    ]
    names = ["model", "latent", "rank", "activation", "activation_base", "activation_tuned"]
    names += ["block", "position", "before", "token"]
    return pl.DataFrame(rows, schema=names, orient="row")


def decoders() -> pl.DataFrame:
    """What either direction raises."""
    rows = [
        (MODEL, latent, side, rank, rank, f" {side}{rank}", 1.0)
        for latent in (0, 1)
        for side in ("base", "tuned")
        for rank in range(3)
    ]
    names = ["model", "latent", "side", "rank", "token_id", "token", "weight"]
    return pl.DataFrame(rows, schema=names, orient="row")


OF_MODELS = {
    "divergence": divergence,
    "places": places,
    "tokens": tokens,
    "differences": differences,
    "components": components,
    "lens": lens,
    "weights": weights,
    "steered": steered,
    "continuations": continuations,
}
OF_SAES = {
    "latents": latents,
    "classes": classes,
    "causal": causal,
    "contexts": contexts,
    "decoders": decoders,
    "scatter": scatter,
}
OF_PAIRS = {"latents": matched_latents, "classes": matched_classes}


def tables() -> dict[str, pl.DataFrame]:
    """By their paths, as figures read them."""
    sae = pl.lit(SAE).alias("sae")
    return {
        "diffing/models/{compared_model}/weights.parquet": weights(),
        "diffing/saes/{diffed_sae}/latents.parquet": latents().with_columns(sae),
        "diffing/saes/{diffed_sae}/causal.parquet": causal().with_columns(sae),
        "diffing/saes/{diffed_sae}/scatter.parquet": scatter().with_columns(sae),
    }
