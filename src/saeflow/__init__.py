"""saeflow takes a language model to figures through sparse autoencoders."""

__version__ = "0.1.0"
