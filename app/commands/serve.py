"""`python -m app serve`, and without a verb: the service itself."""

import os

import click

from app.environment import read_settings
from app.server.serve import serve as serve_until_stopped


@click.command(
    short_help="Serve until a signal; this is done without a command.",
    epilog="""\b
Settings that matter first: HOST, PORT, DATABASE_URL, WINDOW_SECONDS, WORKERS, AUTH.
\b
Examples:
  PORT=9000 WORKERS=2 python -m app serve
  HOST=0.0.0.0 AUTH=jwt JWT_SECRET=... JWT_ISSUER=... JWT_AUDIENCE=... python -m app""",
)
def serve() -> int:
    """Serve until a signal; what is in flight is answered first.

    Settings come from the environment: .env.example has each with its meaning. A wrong one stops the
    start with one line and exit status 2.
    """
    return serve_until_stopped(read_settings(os.environ))
