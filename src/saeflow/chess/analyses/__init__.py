"""What is asked of a player and its SAEs, a folder per analysis."""
