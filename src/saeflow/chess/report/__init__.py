"""The pages of a study of chess."""
