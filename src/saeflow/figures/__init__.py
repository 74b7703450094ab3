"""Figures: tables in, matplotlib figures out; one style."""
