"""The catalogue: one file for each layer, each a tuple of checks in the order of asking."""
