"""`python -m app serve`, and without a verb: the service itself."""

import os

import click

from app.environment import read_settings
from app.server.serve import serve as serve_until_stopped


@click.command
def serve() -> int:
    """Serve until a signal. Settings come from the environment; the README lists them."""
    return serve_until_stopped(read_settings(os.environ))
