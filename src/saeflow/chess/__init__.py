"""Concepts of chess, what latents know of them, and what skill and interventions change."""
