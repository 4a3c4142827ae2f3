"""`python -m app migrate`: the database's schema, brought up to date."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import click

from app.environment import read_settings
from app.main import NO_DRIVER
from app.settings import SettingsError
from app.store.base import StoreUnusable
from app.store.sqlite import SQLiteStore

_EXIT_OK: Final = 0
_EXIT_FAILURE: Final = 1


@click.command(
    short_help="Bring the schema up to date.",
    epilog="""\b
Setting: DATABASE_URL. Stop the service first.
\b
Example:
  DATABASE_URL=postgresql://user:password@127.0.0.1/millrace python -m app migrate""",
)
def migrate() -> int:
    """Bring the schema of DATABASE_URL up to date, and say what that took.

    PostgreSQL needs this before the service's first start, and after an update; a file is brought up
    to date by every start.
    """
    settings = read_settings(os.environ)
    path = settings.database_path
    if path is None and not settings.has_database_server:
        raise SettingsError("DATABASE_URL: memory:// has no schema")
    try:
        applied = asyncio.run(
            _migrate_server(settings.database_url) if path is None else _migrate_file(path)
        )
    except StoreUnusable as error:
        sys.stderr.write(f"millrace: {error}\n")
        return _EXIT_FAILURE
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("up to date")
    return _EXIT_OK


async def _migrate_server(url: str) -> list[str]:
    try:
        from app.store import postgres
    except ImportError:
        raise SettingsError(NO_DRIVER) from None
    return await postgres.migrate(url)


async def _migrate_file(path: Path) -> list[str]:
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    return store.applied
