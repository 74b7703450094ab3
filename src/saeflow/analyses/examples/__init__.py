"""Where the latents of an SAE fire."""
