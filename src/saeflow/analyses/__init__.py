"""Analyses of a study, each in a folder of its own."""
