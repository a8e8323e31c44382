"""A look at the rows before training: what is there, what is odd, and the override that deals with it."""
