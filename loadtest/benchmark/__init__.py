"""`python -m loadtest.benchmark`: the service beside its peers, one core each, in the same minutes."""
