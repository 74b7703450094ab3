"""The model of human play, Maia-2: planes, weights, training, accuracy, games with itself."""
