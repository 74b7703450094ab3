"""An engine's word on positions: best moves, blunders, and what the player learns from them."""
