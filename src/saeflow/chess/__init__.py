"""The wing of chess: a study of SAEs on a model of human play. It may import the core, which knows
nothing of it."""
