"""How knowing a concept and acting on it go with the rating that the model is told."""
