"""Measures whether an answer costs the same at any number of transactions, and draws what it found."""
