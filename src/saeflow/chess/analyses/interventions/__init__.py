"""What becomes of the model's moves when a concept's latents are changed."""
