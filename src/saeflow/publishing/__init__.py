"""A study's artifacts as a repository of a hub: which files, and the card that tells of them."""
