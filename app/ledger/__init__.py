"""The application: what happens to a transaction. Knows the core and the store; knows no HTTP."""
