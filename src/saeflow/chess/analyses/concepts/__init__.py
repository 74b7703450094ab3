"""Which latents tell which concepts."""
