"""Directions as sums of few atoms of a dictionary, such as the decoder of an SAE: greedy pursuits,
the path of the lasso, least squares on atoms that are given."""
