"""Positions that the model solves from some rating upwards."""
