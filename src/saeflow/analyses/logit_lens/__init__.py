"""What latents do to the logits."""
