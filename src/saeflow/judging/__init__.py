"""Judges score completions; summaries choose a scale on one half of them and report on the
other."""
