"""How one enters: HTTP in, HTTP out. Translates, and decides nothing; sees no store."""
