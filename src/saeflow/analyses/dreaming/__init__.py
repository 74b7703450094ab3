"""Prompts that move a latent most, and are likely text at once."""
