"""Every figure of a study: the table it is drawn from, the function that draws it, and its
words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from matplotlib.figure import Figure

from saeflow.config.sections import Figures
from saeflow.figures import (
    by_method,
    crosscoders,
    frontiers,
    in_latents,
    lens,
    lens_sets,
    matched,
    scales,
    trainings,
)

if TYPE_CHECKING:
    from saeflow.figures.io import Tables


def unchanged(table: pl.DataFrame, settings: Figures) -> pl.DataFrame:
    """For figures that draw their table as it is."""
    return table


class FigureKind(NamedTuple):
    """One figure of a study."""

    source: str | Callable[[Tables], pl.DataFrame]
    """Field of ``io.StudyTables`` it is drawn from, or what reads its table."""
    rows: Callable[[pl.DataFrame, Figures], pl.DataFrame]
    """From that table to the rows that are drawn, which are also what its CSV holds."""
    draw: Callable[[pl.DataFrame, Figures], Figure]
    """From those rows to the figure."""
    alt: Callable[[pl.DataFrame], str]
    """From those rows to the text for those who do not see the figure."""
    title: str
    caption: str


FIGURES: dict[str, FigureKind] = {
    "methods_forest": FigureKind(
        "best",
        unchanged,
        by_method.methods_forest,
        by_method.methods_forest_alt,
        "Which method steers best",
        "Each dot is one method at the scale that did best on one part of its completions; its "
        "position is the "
        "product of behaviour and coherence on the others, which had no part in the choice, with "
        "its interval. The "
        "hollow marker is the best product over all scales on the same completions it was picked "
        "from: it is "
        "optimistic. The dashed line is the model without steering.",
    ),
    "product_by_scale": FigureKind(
        "summary",
        scales.along_scale,
        scales.product_by_scale,
        scales.product_by_scale_alt,
        "The product along the scale",
        "The scale is how much of the steering vector is added. Too little leaves the text as it "
        "was, too much "
        "breaks it, so the product of behaviour and coherence rises and falls. Bands are intervals "
        "over "
        "completions; a ring marks the chosen scale.",
    ),
    "goal_detail": FigureKind(
        "summary",
        scales.in_detail,
        scales.goal_detail,
        scales.goal_detail_alt,
        "A few goals in detail",
        "Behaviour says how much a text does what was asked for, coherence how well-formed it is; "
        "both run from 0 to "
        "1. Their product, on the right, is what methods are compared by.",
    ),
    "pareto": FigureKind(
        "summary",
        scales.along_scale,
        scales.pareto,
        scales.pareto_alt,
        "Behaviour against coherence",
        "Each line runs along the scales, from no steering where none is negative, and its arrows "
        "point to larger "
        "ones. The further a line reaches to the upper right, the more behaviour it buys for the "
        "coherence it costs. "
        "Along a dashed curve the product is "
        "the same.",
    ),
    "equal_coherence": FigureKind(
        "matched",
        matched.at_coherence,
        matched.equal_cost,
        matched.equal_cost_alt,
        "Methods at equal coherence",
        "The product weighs behaviour and coherence in one fixed way. Here every method is "
        "followed along its scales "
        "to the first point where coherence has fallen to a share of what it is without steering, "
        "and its behaviour is "
        "read there. A method without a point does not come so far, or does not in every goal.",
    ),
    "equal_divergence": FigureKind(
        "matched",
        matched.at_divergence,
        matched.equal_cost,
        matched.equal_cost_alt,
        "Methods at equal distance from the unsteered model",
        "The same at equal Kullback-Leibler divergence: how far, per token, the steered model's "
        "predictions are from "
        "those of the model without steering on the same text. It needs no judge of coherence.",
    ),
    "steered_vs_unsteered": FigureKind(
        "summary",
        by_method.steered_behaviour,
        by_method.steered_vs_unsteered,
        by_method.steered_vs_unsteered_alt,
        "Steered against unsteered",
        "Mean behaviour of held-out completions without steering (hollow) and with each method at "
        "its chosen "
        "scale, with intervals. Behaviour alone does not see whether the text still makes sense.",
    ),
    "effects_predicted_measured": FigureKind(
        "predictions",
        in_latents.density,
        in_latents.effects_predicted_measured,
        in_latents.effects_predicted_measured_alt,
        "Can effects be predicted",
        "An effect is how much steering with a vector changes the mean activation of a latent. The "
        "approximator "
        "predicts it from the vector alone; here for vectors it has not seen. Dark cells hold many "
        "pairs, circles are "
        "the largest effects of each vector, and on the dashed line prediction equals measurement. "
        "R² is the share "
        "of the variance of effects that is predicted: 1 is perfect, 0 is no better than the mean. "
        "No map predicts the "
        "noise of the measurement, which leaves a share below 1.",
    ),
    "side_effects": FigureKind(
        "side_effects",
        in_latents.strongest,
        in_latents.side_effects,
        in_latents.side_effects_alt,
        "Side effects of steering towards goals",
        "Each dot is one latent: the change that the approximator predicts when a method steers "
        "towards the goal,"
        f" and the change that was measured. Of each method the {in_latents.LATENTS_DRAWN} latents "
        "that move most "
        "are drawn.",
    ),
    "sae_recovery": FigureKind(
        "recovery",
        trainings.recovered,
        trainings.sae_recovery,
        trainings.sae_recovery_alt,
        "Does the SAE find what was planted",
        "The corpus tells for every token its topic and its place in the syntax. For each such "
        "feature: the F1 of the "
        "latent that detects it best, and the cosine of the decoder row that is closest to the "
        "direction of the "
        "feature in the activations.",
    ),
    "lens_moments": FigureKind(
        "lens_latents",
        lens.shapes,
        lens.moments,
        lens.moments_alt,
        "What latents do to the logits",
        "Each dot is one latent: how its decoder row, seen through the unembedding, spreads over "
        "the vocabulary. Heavy "
        "tails to the right promote a few tokens (prediction), to the left suppress a few; a wide "
        "spread with light "
        "tails splits the vocabulary in two (partition). A class is given only beyond what random "
        "directions through "
        "the same unembedding show.",
    ),
    "lens_histograms": FigureKind(
        "lens_splits",
        lens.shares,
        lens.histograms,
        lens.histograms_alt,
        "Latents that tell a token set apart",
        "Logit weights of the tokens of one set, and of all other tokens, for the latents that "
        "tell them apart best; "
        "in brackets the size of the set. KS is the two-sample Kolmogorov-Smirnov statistic: +1 "
        "where all tokens of "
        "the set lie above all others, -1 where they lie below.",
    ),
    "lens_manhattan": FigureKind(
        "lens_enrichment",
        lens_sets.discoveries,
        lens_sets.manhattan,
        lens_sets.manhattan_alt,
        "Which token sets stand out",
        "A column of dots per token set, a dot for every latent whose logit weights tell the set "
        "apart at the study's "
        "false discovery rate. Numbers name the strongest latents.",
    ),
    "lens_heat_map": FigureKind(
        "lens_scores",
        lens_sets.grid,
        lens_sets.heat_map,
        lens_sets.heat_map_alt,
        "Token sets and the latents that lead them",
        "For each token set the latent that stands out most, and what that latent does to all "
        "other sets: red where "
        "their tokens lie above the others, blue where they lie below.",
    ),
    "lens_causal": FigureKind(
        "lens_causal",
        unchanged,
        lens.causal,
        lens.causal_alt,
        "Does the model do what the lens says",
        "The lens sees only what goes straight from a latent to the logits. Here the latent is "
        "added to the running "
        "model, or taken away where it fires, and the change of the next token's log-probability "
        "is measured. r is "
        "the correlation with the logit weights over the whole vocabulary.",
    ),
    "lens_layers": FigureKind(
        "lens_latents",
        lens.by_layer,
        lens.layers,
        lens.layers_alt,
        "Logit weights by layer",
        "How the statistics of logit weights are spread over the latents of each SAE. Half of the "
        "latents lie in a "
        "box, nine in ten between the whiskers.",
    ),
    "effect_scales": FigureKind(
        "effects",
        unchanged,
        in_latents.effect_scales,
        in_latents.effect_scales_alt,
        "Scales at which effects were measured",
        "Every steering vector is added with the scale that harms the model's loss by a set "
        "amount, so that "
        "effects of different vectors can be compared. The colour tells how the search for "
        "that "
        "scale ended.",
    ),
    "sae_frontier": FigureKind(
        "saes",
        frontiers.frontier,
        frontiers.sae_frontier,
        frontiers.sae_frontier_alt,
        "What SAEs keep at how many latents",
        "Each point is one SAE, or several that differ in their seed alone; lines join those of "
        "one architecture and "
        "width. Up and to the left is better: more is kept by fewer latents. Left: the share of "
        "the activations' "
        "variance that is reproduced. Right: how much of the loss that the model has without the "
        "activation the "
        "reconstruction wins back. Bars are one standard error, over seeds where there are "
        "several, else over the "
        "evaluation text.",
    ),
    "crosscoder_sources": FigureKind(
        "sources",
        crosscoders.in_sources,
        crosscoders.crosscoder_sources,
        crosscoders.crosscoder_sources_alt,
        "What the sources of a crosscoder share",
        "A latent of a crosscoder has a decoder row for every source. Left: each source's share of "
        "the rows' norms, in "
        "units of the spread of its activations; latents in the middle are shared, those at the "
        "right belong to one "
        f"source. Right: latents of which one source has more than {crosscoders.EXCLUSIVE:.0%}, "
        "and how much of each "
        "the other sources hold all the same: in what the crosscoder leaves unexplained there "
        "(up), and in what other "
        "latents rebuild (right), relative to the owner. A latent truly of one source lies at "
        "the "
        "lower left.",
    ),
    "sae_training": FigureKind(
        "sae_training",
        trainings.sae_curves,
        trainings.sae_training,
        trainings.sae_training_alt,
        "How the SAE trained",
        "Explained variance: the share of the variance of activations that the SAE reproduces; 1 "
        "is perfect. L0: "
        "how many latents it uses per token to do so.",
    ),
    "model_training": FigureKind(
        "model_training",
        unchanged,
        trainings.model_training,
        trainings.model_training_alt,
        "How the language model trained",
        "Loss per token while the model trains. Where the corpus is written by a grammar its "
        "entropy is known: "
        "the loss of a predictor that knows the grammar, which nothing can beat.",
    ),
}
