"""Plain words for what the report names: methods, judges, numbers in metrics files."""

from __future__ import annotations

from typing import Any, NamedTuple

JUDGES = {
    "planted": "Scores are exact: the grammar that wrote the corpus tells how much of a text is "
    "about the topic, and "
    "how much of it the grammar could have written.",
    "lexical": "Behaviour is the share of a text's words that are on the goal's list; coherence "
    "compares the unsteered "
    "model's loss on the text with its loss on its own texts.",
    "openai": "Scores are a language model's answers to one question per text and criterion.",
}


def intervals_for(prompts: int) -> str:
    """For what completions the intervals of scores are, by how many different prompts the study
    has."""
    if prompts == 1:
        return "for more completions of the study's one prompt and for no other prompts"
    return f"for prompts like the study's {prompts}, which are drawn with all their completions"


SCALE_RULES = {
    "loss_increase": "the scale at which the model's loss has risen by {value:g} nats per token",
    "loss": "the scale at which the model's loss is {value:g} nats per token",
    "fixed": "the scale {value:g}",
}

VECTORS = {
    "decoder": "rows of the decoder of SAE {sae}",
    "mixtures": "mixtures of two rows of the decoder of SAE {sae}",
    "random": "directions drawn at random",
    "file": "rows of {path}",
    "sae_ts": "a second round: the vector of every latent by SAE-targeted steering, from {path}",
}


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
    known = {name: metrics[name] for name in METRICS if isinstance(metrics.get(name), int | float)}
    return [
        Fact(METRICS[name][0], readable(value), METRICS[name][1]) for name, value in known.items()
    ]


def readable(value: float) -> str:
    """A number as people read it: thousands apart, three or four digits of a fraction."""
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 else f"{value:.3g}"
