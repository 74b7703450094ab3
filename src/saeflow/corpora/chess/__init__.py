"""Chess: games to positions, positions as bitboards, and the moves that are possible in them."""
