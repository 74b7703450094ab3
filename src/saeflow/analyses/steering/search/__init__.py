"""The search for the layer and the scale at which a method does best within a budget of
divergence."""

UNSTEERED = "unsteered"
"""What tables call the completions without a vector, which every method may choose."""
RANDOM = "random"
"""The control, which is searched like any method."""
