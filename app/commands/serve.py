"""`python -m app serve`, and without a verb: the service itself."""

import os

import click

from app.server.serve import serve as serve_until_stopped
from app.settings import read_settings


@click.command
def serve() -> int:
    """Serve until a signal. Settings come from the environment; the README lists them."""
    return serve_until_stopped(read_settings(os.environ))
