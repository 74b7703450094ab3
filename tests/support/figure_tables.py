"""Plausible tables of a study that never ran, for the tests of figures and report."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import decomposition_tables
import numpy as np
import planted_tasks
import polars as pl
import probing_tables
from planted_circle import planted_tables
from planted_latents import planted_latent_tables

METHODS = ("caa", "sae", "sae_ts", "pinverse", "rotation", "random")
PEAKS = {"caa": 0.62, "sae": 0.45, "sae_ts": 0.6, "pinverse": 0.2, "rotation": 0.35, "random": 0.0}
GOALS = (
    "anger", "christian_evangelist", "conspiracy", "french", "london", "love", "praise",
    "want_to_die", "wedding",
    "sea", "animals", "food", "sadness", "magic", "family", "weather",
)  # fmt: skip
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
UNIT = 7.31  # mean activation norm


def summary(goals: int = 9, methods: Sequence[str] = METHODS) -> pl.DataFrame:
    """Behaviour rises with scale, coherence falls; random changes nothing but coherence."""
    generator = np.random.default_rng(0)
    rows = []
    for goal in GOALS[:goals]:
        ease = generator.uniform(0.6, 1.4)
        for method in methods:
            sharp = generator.uniform(0.8, 1.2)
            cells = [_cell(PEAKS[method] * ease, scale * sharp, generator) for scale in SCALES]
            chosen = int(np.argmax([cell["product"] for cell in cells]))
            for index, (scale, cell) in enumerate(zip(SCALES, cells, strict=True)):
                keys = {"goal": goal, "method": method, "scale": scale * UNIT, "scale_index": index}
                for split, n in (("all", 64), ("selection", 32), ("report", 32)):
                    rows.append(
                        {
                            **keys,
                            "split": split,
                            **cell,
                            "n": n,
                            "missing": 0,
                            "reasons": "",
                            "eligible": True,
                            "selected": index == chosen,
                        }
                    )
    return pl.DataFrame(rows)


def _cell(peak: float, scale: float, generator: np.random.Generator) -> dict[str, float]:
    behaviour = float(
        np.clip(0.03 + 1.4 * peak * (1 - np.exp(-1.5 * scale)) + generator.normal(0, 0.015), 0, 1)
    )
    coherence = float(
        np.clip(0.96 / (1 + np.exp(2.2 * (scale - 2.0))) + generator.normal(0, 0.01), 0, 1)
    )
    values = {"behaviour": behaviour, "coherence": coherence, "product": behaviour * coherence}
    cell = {}
    for name, value in values.items():
        cell |= {
            name: value,
            f"{name}_low": max(0.0, value - 0.05),
            f"{name}_high": min(1.0, value + 0.05),
        }
    return cell


def best(table: pl.DataFrame) -> pl.DataFrame:
    """The chosen scale of each goal and method, and their averages over goals."""
    report = table.filter(pl.col("split") == "report")
    zero = report.filter(pl.col("scale_index") == 0).select(
        "goal", "method", unsteered_product="product"
    )
    chosen = report.filter("selected").drop("split", "eligible", "selected", "reasons")
    rows = chosen.join(zero, on=["goal", "method"], maintain_order="left").with_columns(
        in_sample_product=pl.col("product") + 0.03,
        in_sample_scale=pl.col("scale"),
        in_sample_scale_index=pl.col("scale_index"),
    )
    numbers = [
        name
        for name in rows.columns
        if name
        not in (
            "goal",
            "method",
            "scale",
            "scale_index",
            "in_sample_scale",
            "in_sample_scale_index",
        )
    ]
    average = (
        rows.group_by("method", maintain_order=True)
        .agg(pl.col(numbers).mean())
        .with_columns(goal=pl.lit("average"))
    )
    narrow = {
        f"{name}_{end}": pl.col(name) + sign * 0.02
        for name in ("behaviour", "coherence", "product")
        for end, sign in (("low", -1), ("high", 1))
    }
    return pl.concat([rows, average.with_columns(**narrow)], how="diagonal_relaxed")


def comparisons(table: pl.DataFrame) -> pl.DataFrame:
    """Every pair of methods of every goal; a difference of more than 0.03 is beyond doubt."""
    rows = []
    for goal in table["goal"].unique(maintain_order=True):
        own = table.filter(pl.col("goal") == goal).to_dicts()
        for i, first in enumerate(own):
            for second in own[i + 1 :]:
                difference = first["product"] - second["product"]
                keys = {
                    "goal": goal,
                    "method": first["method"],
                    "other": second["method"],
                    "n": 32,
                    "units": 32,
                }
                ends = {"difference_low": difference - 0.03, "difference_high": difference + 0.03}
                p_value, p_holm = (1e-5, 0.002) if abs(difference) > 0.03 else (0.4, 1.0)
                rows.append(
                    {**keys, "difference": difference, **ends, "p_value": p_value, "p_holm": p_holm}
                )
    return pl.DataFrame(rows)


def matched(goals: int = 9) -> pl.DataFrame:
    """Behaviour at equal cost, which falls with coherence and rises with divergence; pinverse comes
    nowhere."""
    costs = {"coherence": (0.95, 0.9, 0.8), "kl": (0.1, 0.5, 1.0)}
    rows = []
    for goal in [*GOALS[:goals], "average"]:
        for method, peak in PEAKS.items():
            for cost, levels in costs.items():
                for level in levels:
                    behaviour = (
                        None
                        if method == "pinverse"
                        else peak * (1 - level if cost == "coherence" else level)
                    )
                    ends = (None, None) if behaviour is None else (behaviour * 0.9, behaviour * 1.1)
                    rows.append((goal, method, cost, level, 1.0, behaviour, *ends, 64))
    columns = [
        "goal",
        "method",
        "cost",
        "level",
        "scale",
        "behaviour",
        "behaviour_low",
        "behaviour_high",
        "n",
    ]
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def with_words(table: pl.DataFrame, method: str = "few_shot") -> pl.DataFrame:
    """A summary with a method in words beside the others: as its first method without a vector,
    and at one point without a scale."""
    first = table.filter(pl.col("method") == table["method"][0], pl.col("scale_index") < 2)
    behind = pl.col("scale_index") == 1
    own = first.with_columns(
        method=pl.lit(method),
        scale=pl.when(~behind).then("scale"),
        selected=behind,
    )
    return pl.concat([table, own])


BESIDE = {
    "distinct_2": 0.97,
    "self_similarity": 0.11,
    "text_loss_increase": 0.25,
    "choice_accuracy": 0.61,
    "choice_log_odds": -0.42,
}


def beside_scores(table: pl.DataFrame) -> pl.DataFrame:
    """A summary with diversity and capabilities: the numbers of `BESIDE` where nothing is added,
    half of each elsewhere."""
    return table.with_columns(
        (pl.when(pl.col("scale") == 0).then(value).otherwise(value / 2) + shift).alias(name + end)
        for name, value in BESIDE.items()
        for end, shift in (("", 0.0), ("_low", -0.04), ("_high", 0.04))
    )


def search(goals: int = 9) -> pl.DataFrame:
    """A search over three layers and three scales: `caa` does best at the highest layer, and
    larger scales are over the budget at the lowest."""
    rows = []
    for goal in GOALS[:goals]:
        rows.append((goal, "unsteered", None, 0, 0.0, 0.0, 0.04, 0.0, True, False, True))
        for method in ("caa", "random"):
            for layer in (0, 1, 2):
                for index, multiple in enumerate((0.25, 0.5, 1.0), 1):
                    gained = (0.5 if method == "caa" else 0.02) * (1.0 if layer == 2 else 0.5)
                    product, kl = gained * multiple, multiple * (1.2 if layer == 0 else 0.4)
                    chosen = method == "caa" and layer == 2 and index == 3
                    own = method == "caa" and layer == 1 and index == 3
                    within = kl <= 0.5
                    place = (layer, index, multiple, multiple * UNIT)
                    rows.append((goal, method, *place, product, kl, within, chosen, own))
    columns = [
        *("goal", "method", "layer", "scale_index", "multiple", "scale", "product", "kl"),
        *("within_budget", "chosen", "chosen_of_own"),
    ]
    return pl.DataFrame(rows, schema=columns, orient="row")


def search_best(goals: int = 9) -> pl.DataFrame:
    """What such a search chose, on the half that chose nothing."""
    rows = []
    for goal in [*GOALS[:goals], "average"]:
        for method, layers, layer, product in (
            ("caa", "all", 2, 0.47),
            ("caa", "own", 1, 0.24),
            ("random", "all", None, 0.04),
            ("random", "own", None, 0.04),
        ):
            row = {"goal": goal, "method": method, "layers": layers, "selection_product": product}
            if goal != "average":
                row |= {"layer": layer, "multiple": 1.0 if layer else 0.0, "scale_index": 3}
            for name, value in {
                "product": product,
                "behaviour": product,
                "coherence": 0.9,
                "kl": 0.41 if layer else 0.0,
                "over_own": product - 0.24 if method == "caa" else 0.0,
                "over_random": product - 0.04,
                "unsteered_product": 0.04,
            }.items():
                row |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
            rows.append(row | {"n": 32, "missing": 0, "selection_kl": 0.4})
    return pl.DataFrame(rows, infer_schema_length=None)


def predictions(vectors: int = 52, latents: int = 256) -> pl.DataFrame:
    """Effects with heavy tails, predicted with noise."""
    generator = np.random.default_rng(1)
    measured = generator.standard_t(2.5, size=(vectors, latents)) * 0.05
    predicted = 0.8 * measured + generator.normal(0, 0.03, size=measured.shape)
    keys = {
        "row": np.repeat(np.arange(vectors), latents),
        "latent": np.tile(np.arange(latents), vectors),
    }
    pairs = pl.DataFrame({**keys, "predicted": predicted.ravel(), "measured": measured.ravel()})
    largest = pairs.filter(pl.col("measured").rank("ordinal", descending=True).over("row") <= 3)
    return pl.concat(
        [pairs.with_columns(kind=pl.lit("sample")), largest.with_columns(kind=pl.lit("top"))]
    )


def side_effects(goals: int = 9, latents: int = 128) -> pl.DataFrame:
    """Every method's predicted and measured change of every latent."""
    generator = np.random.default_rng(2)
    parts = []
    for goal in GOALS[:goals]:
        for method in METHODS:
            predicted = generator.standard_t(2.5, latents) * 0.05
            measured = predicted + generator.normal(0, 0.03, latents)
            parts.append(
                pl.DataFrame(
                    {
                        "method": [method] * latents,
                        "latent": np.arange(latents),
                        "predicted": predicted,
                        "measured": measured,
                        "goal": [goal] * latents,
                    }
                )
            )
    return pl.concat(parts)


def recovery() -> pl.DataFrame:
    """Ten topics and twenty-two places in the syntax."""
    generator = np.random.default_rng(3)
    names = [("topic", goal) for goal in ("neutral", *GOALS[:9])] + [
        ("syntax", f"place_{i}_of_phrase") for i in range(22)
    ]
    rows = []
    for kind, feature in names:
        f1 = float(generator.beta(5, 2))
        rows.append(
            {
                "label": kind,
                "feature": feature,
                "rows": 1000,
                "latent_cosine": int(generator.integers(512)),
                "latent_f1": int(generator.integers(512)),
                "cosine": float(np.clip(f1 + generator.normal(0, 0.1), 0, 1)),
                "precision": f1,
                "recall": f1,
                "f1": f1,
                "detectors": [7, 3],
                "detectors_f1": [f1, f1 / 2],
                "sae": "topk",
            }
        )
    return pl.DataFrame(rows)


def saes() -> pl.DataFrame:
    """Three architectures at four sparsities, one of them with several seeds, and a crosscoder
    without losses."""
    rows = []
    for offset, (architecture, seeds) in enumerate(
        (("topk", 1), ("batchtopk", 3), ("standard", 1))
    ):
        for k in (8, 16, 32, 64):
            kept = 1 - 0.6 / k**0.5 - 0.03 * offset
            rows.append(
                {
                    "sae": ", ".join(f"{architecture}-{k}-{seed}" for seed in range(seeds)),
                    "kind": "sae",
                    "architecture": architecture,
                    "control": None,
                    "reads": "blocks.1.hook_resid_post",
                    "writes": "blocks.1.hook_resid_post",
                    "d_sae": 512,
                    "seeds": seeds,
                    "se_over": "seeds" if seeds > 1 else "blocks",
                    "l0": float(k),
                    "l0_se": 0.3,
                    "explained_variance": kept,
                    "explained_variance_se": 0.004,
                    "recovered": kept + 0.05,
                    "recovered_se": 0.003,
                }
            )
    both = {
        **rows[0],
        "sae": "both",
        "kind": "crosscoder",
        "reads": "blocks.0.hook_resid_post, blocks.1.hook_resid_post",
    }
    last = {**both, "recovered": None, "recovered_se": None}
    return pl.DataFrame([*rows, last], schema_overrides={"control": pl.String})


def sources(names: Sequence[str] = ("layers", "models"), latents: int = 60) -> pl.DataFrame:
    """Two crosscoders: most latents shared, some of one source, of which half are held by the other
    all the same."""
    generator = np.random.default_rng(5)
    rows = []
    for name in names:
        for latent in range(latents):
            share = float(
                generator.choice([generator.normal(0.5, 0.05), 0.01, 0.99], p=[0.6, 0.2, 0.2])
            )
            held = float(generator.choice([0.05, 0.8]))
            for source, part in enumerate((share, 1 - share)):
                ratio = 1.0 if part > 0.5 else held
                rows.append(
                    {
                        "latent": latent,
                        "source": source,
                        "model": "base" if name == "layers" else ("base", "tuned")[source],
                        "hook": f"blocks.{source if name == 'layers' else 0}.hook_resid_post",
                        "density": 0.0 if latent == 7 else 0.02,
                        "relative_norm": part,
                        "owner": part > 0.5,
                        "beta_error": ratio,
                        "beta_reconstruction": ratio,
                        "nu_error": ratio,
                        "nu_reconstruction": ratio,
                        "sae": name,
                    }
                )
    return pl.DataFrame(rows)


def model_training() -> pl.DataFrame:
    """A loss that falls towards its bound."""
    steps = np.arange(0, 900, 10)
    return pl.DataFrame(
        {
            "step": steps,
            "tokens": steps * 2048,
            "loss": 1.9 + 4.6 * np.exp(-steps / 120),
        }
    )


def sae_training(names: Sequence[str] = ("topk",)) -> pl.DataFrame:
    """Explained variance that rises."""
    steps = np.arange(0, 732, 6)
    parts = [
        pl.DataFrame(
            {
                "step": steps,
                "tokens": steps * 2048,
                "loss": np.exp(-steps / 90),
                "l0": 8.0 + 20 * np.exp(-steps / (60 + 30 * i)),
                "error": 0.05 + 0.9 * np.exp(-steps / (90 + 40 * i)),
                "sae": [name] * len(steps),
            }
        )
        for i, name in enumerate(names)
    ]
    return pl.concat(parts)


def effects() -> pl.DataFrame:
    """Scales of the vectors and how their search ended."""
    generator = np.random.default_rng(4)
    scale = np.clip(generator.gamma(9, 1.2, 512), 0, 29.2)
    return pl.DataFrame(
        {"scale": scale, "status": ["never_reached" if value > 17 else "ok" for value in scale]}
    )


KINDS = {
    "digits": ["digits_1", "digits_2"],
    "form": ["starts_with_space", "all_caps", "capitals"],
    "user": GOALS[:9],
}


def lens_latents(names: Sequence[str] = ("main",), latents: int = 400) -> pl.DataFrame:
    """Shapes of logit weights: most like random directions, some skewed, some split in two."""
    generator = np.random.default_rng(5)
    parts = []
    for layer, name in enumerate(names):
        skewness = generator.standard_t(3, latents) * 0.4
        kinds = np.where(skewness > 1, "prediction", np.where(skewness < -1, "suppression", "none"))
        columns = {
            "sae": [name] * latents,
            "latent": np.arange(latents),
            "layer": [layer] * latents,
            "skewness": skewness,
            "kurtosis": 1.5 * skewness**2 + generator.gamma(1, 0.2, latents) - 0.3,
            "std": generator.gamma(20, 0.05, latents) * (1 + layer),
            "log10_density": generator.normal(-2, 0.5, latents),
            "class": kinds,
        }
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts)


def lens_splits(count: int = 6) -> pl.DataFrame:
    """Histograms of two groups of tokens apart from each other."""
    centres = np.linspace(-4, 4, 64)
    rows = []
    for place in range(count):
        inside, outside = (np.exp(-((centres - middle) ** 2)) for middle in (2 - 0.3 * place, -0.5))
        counts = [
            (size * values).astype(int).tolist() for size, values in ((40, inside), (400, outside))
        ]
        rows.append((place * 7, GOALS[place % len(GOALS)], 0.9 - 0.1 * place, -4.0, 4.0, *counts))
    columns = ["latent", "set", "ks", "low", "high", "inside", "outside"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def lens_sets() -> pl.DataFrame:
    """The token sets."""
    rows = [(name, kind) for kind, names in KINDS.items() for name in names]
    return pl.DataFrame(rows, schema=["set", "kind"], orient="row")


def lens_enrichment(latents: int = 400) -> pl.DataFrame:
    """Token sets that stand out for one latent in ten."""
    generator = np.random.default_rng(6)
    rows = [
        ("main", latent, name, effect, 10.0 ** -(40 * abs(effect)), 0.01)
        for name in lens_sets()["set"]
        for latent, effect in zip(range(latents), generator.normal(0, 0.3, latents), strict=True)
        if latent % 10 == 0
    ]
    return pl.DataFrame(rows, schema=["sae", "latent", "set", "effect", "p", "q_bh"], orient="row")


def lens_scores(latents: int = 400) -> pl.DataFrame:
    """Every latent and set."""
    generator = np.random.default_rng(7)
    rows = [
        (latent, name, float(auc))
        for name in lens_sets()["set"]
        for latent, auc in enumerate(generator.beta(20, 20, latents))
    ]
    return pl.DataFrame(rows, schema=["latent", "set", "auc"], orient="row")


def lens_causal(latents: int = 8) -> pl.DataFrame:
    """Measured changes that follow logit weights with noise."""
    generator = np.random.default_rng(8)
    rows = []
    for latent in range(latents):
        for side, middle in (("top", 2.0), ("bottom", -1.5), ("random", 0.0)):
            for token in range(10):
                weight = float(generator.normal(middle, 0.3))
                rows.append(
                    (
                        latent,
                        GOALS[latent],
                        token,
                        side,
                        weight,
                        weight / 2,
                        weight / 3,
                        -weight / 4,
                    )
                )
    columns = ["latent", "set", "token_id", "side", "weight", "predicted", "addition", "ablation"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def lens_causal_latents(latents: int = 8) -> pl.DataFrame:
    """How well the lens tells what each of those latents does."""
    rows = [(latent, 0.8, 0.6) for latent in range(latents)]
    return pl.DataFrame(rows, schema=["latent", "r_addition", "r_ablation"], orient="row")


def densities(names: Sequence[str] = ("main",), latents: int = 400) -> pl.DataFrame:
    """Shares of tokens on which latents fire; every tenth never does."""
    generator = np.random.default_rng(9)
    parts = []
    for name in names:
        density = 10 ** generator.normal(-2, 0.7, latents).clip(-5, 0)
        density[::10] = 0
        columns = {"sae": [name] * latents, "latent": np.arange(latents), "density": density}
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts)


def label_summary() -> pl.DataFrame:
    """Labels of two sources, of which one is better than chance."""
    rows = [
        {
            "sae": "main",
            "source": source,
            "score": score,
            "latents": 100,
            "random": 0.5,
            "value": value,
            "value_low": value - 0.03,
            "value_high": value + 0.03,
        }
        for score in ("detection", "fuzzing", "simulation")
        for source, value in (("tokens", 0.62), ("self", 0.51))
    ]
    return pl.DataFrame(rows)


@cache
def geometry_tables() -> dict[str, pl.DataFrame]:
    """Of the planted circle and line, and of the latents of both."""
    with tempfile.TemporaryDirectory() as folder:
        made = planted_tables(Path(folder)) | planted_latent_tables(Path(folder))
    names = ("circles", "places", "lines", "held_out", "causes", "latent_circles", "latent_places")
    names = (*names, "splits", "periods", "dated_latents")
    return {f"geometry/{name}.parquet": made[name] for name in names}


@cache
def task_tables() -> dict[str, pl.DataFrame]:
    """Of the planted tasks."""
    with tempfile.TemporaryDirectory() as folder:
        made = planted_tasks.planted_tables(Path(folder))
    curves = [
        made[f"main/{task}/curves"].with_columns(sae=pl.lit("main"), task=pl.lit(task))
        for task in planted_tasks.TASKS
    ]
    return {
        "tasks/sweep.parquet": made["sweep"],
        "tasks/{cleaned_sae}/{task}/curves.parquet": pl.concat(curves),
        "tasks/{cleaned_sae}/specificity.parquet": made["main/specificity"].with_columns(
            sae=pl.lit("main")
        ),
    }


def dreamed_prompts(method: str) -> pl.DataFrame:
    """Prompts that move two targets the more, the less likely they are."""
    rows = [
        (name, target, method, 2.0 + step, 3.0 * step + 1)
        for name, target in (("main", "12"), ("without-sae", "<b>way</b>"))
        for step in range(4)
    ]
    names = ("dreamed", "target", "method", "cross_entropy", "value")
    table = pl.DataFrame(rows, schema=names, orient="row")
    return table if method != "context" else table.drop("method").filter(target="12")


def tables(goals: int = 2) -> dict[str, pl.DataFrame]:
    """The tables that figures name, by their paths, as they are read."""
    steered = summary(goals)
    chosen = best(steered)
    return {
        "labels/{labelled_sae}/summary.parquet": label_summary(),
        **decomposition_tables.tables(),
        **probing_tables.tables(),
        **geometry_tables(),
        **task_tables(),
        "dreaming/{dreamed}/fronts.parquet": dreamed_prompts("adaptive"),
        "dreaming/{dreamed}/contexts.parquet": dreamed_prompts("context"),
        "steering/summary.parquet": steered,
        "steering/best.parquet": chosen,
        "steering/matched.parquet": matched(goals),
        "steering/search.parquet": search(goals),
        "steering/{goal}/side_effects.parquet": side_effects(goals),
        "effects/{target_sae}/predictions.parquet": predictions(20, 64),
        "effects/{target_sae}/metrics.json": pl.DataFrame({"r2": 0.7, "r2_ceiling": 0.9}),
        "effects/{target_sae}/effects.h5": effects(),
        "saes/{sae}/recovery.parquet": recovery(),
        "saes/summary.parquet": saes(),
        "saes/{sae}/sources.parquet": sources(),
        "saes/{sae}/training.parquet": sae_training(),
        "models/{model}/training.parquet": model_training(),
        "models/{model}.metrics.json": pl.DataFrame({"loss": 1.9, "entropy": 1.84}),
        "examples/{sae}/latents.parquet": densities(),
        "logit_lens/sets.parquet": lens_sets(),
        "logit_lens/{lens_sae}/latents.parquet": lens_latents(),
        "logit_lens/{lens_sae}/splits.parquet": lens_splits(),
        "logit_lens/{lens_sae}/enrichment.parquet": lens_enrichment(),
        "logit_lens/{lens_sae}/scores.parquet": lens_scores(),
        "logit_lens/{lens_sae}/causal.parquet": lens_causal(),
        "logit_lens/{lens_sae}/causal_latents.parquet": lens_causal_latents(),
    }
