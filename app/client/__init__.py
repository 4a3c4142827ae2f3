"""A client of the service, for programs that post to it: it knows the contract, and no server."""
