"""The move from doublezerod: what is taken over, in which order, and the way back."""
