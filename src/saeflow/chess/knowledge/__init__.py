"""What there is to know of a position: concepts that hold in it, and the moves that answer them."""
