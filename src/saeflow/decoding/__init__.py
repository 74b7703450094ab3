"""Running a language model with edits of its residual stream, and drawing text from it."""
