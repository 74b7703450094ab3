"""Activations of the player over positions, and the SAEs that read them."""
