"""The words of the report of a study of chess."""

from __future__ import annotations

from saeflow.report.wording import METRICS

BOARD_METRICS = {
    "explained_variance": METRICS["explained_variance"],
    "l0": ("L0", "latents that are active per position"),
    "agreement": ("Same first move", "share of positions in which the model's first legal move "
    "stays what it was"),
    "kl": ("Change of predictions", "nats per move, Kullback-Leibler, over legal moves"),
    "loss_clean": ("Loss of the model", "nats per move that was played, untouched"),
    "loss_sae": ("Loss through the SAE", "with its reconstruction in place of the activation"),
    "cosine": METRICS["cosine"],
    "l2_ratio": METRICS["l2_ratio"],
    "mse": METRICS["mse"],
    "dead": ("Dead latents", "that never fire on the positions of the evaluation"),
    "dense": ("Dense latents", "that fire in more than a tenth of the positions"),
    "positions": ("Positions", "that these numbers come from, of held-out games"),
}  # fmt: skip
"""The same of SAEs of a chess model."""

PLAYERS = {
    "embedded": "the small model that comes with saeflow",
    "train": "trained here, on the split model",
    "path": "a checkpoint of the official package",
    "official": "the published checkpoint",
}
"""Where a model of human play comes from, by the key of the config that says so."""

TOKENS = {
    "mean": "a row is the mean of the model's tokens of a position",
    "all": "a row is one token of a position",
}
"""What the SAEs of a chess model read."""

TRANSITIONS = {
    "transition": (
        "Solved from some rating upwards",
        "wrong at every lower rating, right from there on",
    ),
    "always": ("Always solved", "right at every rating that the model is told"),
    "never": ("Never solved", "wrong at every rating"),
    "irregular": ("Now and then", "right at some ratings, in no order"),
}
"""Kinds of positions by the ratings at which the model solves them."""

BLUNDERS = {
    "played": ("Blunders played", "moves that were played"),
    "transition": (
        "Blunders of the weakest rating",
        "choices of the model, told the weakest, where a stronger one is right",
    ),
}
"""Where blunders come from."""

BY_CHANCE = (
    "share of the orders of as many right ratings, the strongest among them, that would look like "
    "a transition, on average over the transitions"
)

GROUP_CURVES = {
    "awareness": "how well the concept's latent tells positions that have it from others (AUC)",
    "control_awareness": "the same of random latents that fire about as often",
    "willingness": "probability of the moves that answer the concept",
    "accuracy": "how often the right move is the model's choice, where it answers the concept",
}
"""What is followed along the ratings."""
