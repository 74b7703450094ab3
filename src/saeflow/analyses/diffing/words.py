"""Classes of latents and parts of the difference, in words; without torch."""

from __future__ import annotations

CLASSES = {
    "shared": "both models hold it",
    "leaning": "both hold it, one of them with a much longer direction",
    "base_only": "of the base model alone",
    "tuned_only": "of the compared model alone",
    "shrunk": "seems to be of one model, though what is left of the other holds it, too",
    "decoupled": "seems to be of one model, and other latents stand for it in the other",
    "elsewhere": "of a third model that the crosscoder reads",
    "difference": "of an SAE of the difference itself",
    "dead": "never fires on this text",
}
"""Of latents, in the order of tables."""
KINDS = {
    "none": "nothing: the base's stream",
    "everything": "everything: the model's own stream",
    "latents": "all latents",
    "bias": "the difference of the biases",
    "error": "what the crosscoder leaves out",
    "mean_difference": "the mean difference, the same at every token",
    "class": "all latents of a class",
    "largest": "the latents that contribute most",
    "random": "random directions, as long and as often",
    "single": "one latent",
    "base_model": "the base model itself",
    "stream_in_base": "the base's later layers, from the model's stream",
}
"""Parts of the difference that are put in."""
OF_THE_BASE = ("base_model", "stream_in_base")
"""Those of `KINDS` that are predictions of the base: how far away they are, and no share of it."""
