"""Tools that load a running service from outside and say what they found."""
