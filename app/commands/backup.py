"""`python -m app backup FILE`: a copy of the database, also while the service runs."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from app.environment import read_settings
from app.settings import SettingsError
from app.store.backup import BackupFailed, copy_database

_EXIT_OK: Final = 0
_EXIT_FAILURE: Final = 1


@click.command(
    short_help="Copy the database to a file.",
    epilog="""\b
Setting: DATABASE_URL, of a SQLite file.
\b
Example:
  python -m app backup backups/$(date +%F).db""",
)
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> int:
    """Copy the database of DATABASE_URL to FILE, also while the service runs.

    FILE is new, complete, checked and synced, or not there. To restore it is to start from it.
    """
    settings = read_settings(os.environ)
    source = settings.database_path
    if settings.has_database_server:
        raise SettingsError("DATABASE_URL: PostgreSQL is backed up by its own tools, such as pg_dump")
    if source is None:
        raise SettingsError("DATABASE_URL: memory:// keeps nothing that could be backed up")
    try:
        copied = copy_database(source, file)
    except BackupFailed as error:
        sys.stderr.write(f"millrace: {error}\n")
        return _EXIT_FAILURE
    click.echo(f"{file}: {copied.transactions} transactions, {copied.size_bytes} bytes")
    return _EXIT_OK
