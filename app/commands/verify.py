"""`python -m app verify`: whether what is kept is whole, and what is answered is what is kept."""

import asyncio
import os
import sys
from typing import Final

import click

from app.client.service import Service
from app.client.values import ClientError
from app.client.wire import AddressError
from app.commands.comparison import compare, shown, tally_differences
from app.environment import read_settings
from app.main import NO_DRIVER, wall_clock_ms
from app.settings import Settings, SettingsError
from app.store.base import StoreUnusable
from app.store.sqlite_verification import SQLiteVerification
from app.store.verification import Verification

_EXIT_OK: Final = 0
_EXIT_DIFFERS: Final = 1
_EXIT_UNUSABLE: Final = 2


@click.command(
    short_help="Check what is kept and what is answered.",
    epilog="""\b
Settings: DATABASE_URL, WINDOW_SECONDS; with PostgreSQL also RETENTION_DAYS.
\b
Examples:
  python -m app verify
  python -m app verify --url http://127.0.0.1:8000""",
)
@click.option("--url", help="A running service of this database, to be asked for its statistics.")
@click.option("--token", envvar="TOKEN", default="", help="A token for it, also from TOKEN.")
def verify(url: str | None, token: str) -> int:
    """Check the database of DATABASE_URL, also while the service runs: it is only read.

    Looked at are the file's pages and schema, every row, every remembered answer and the feed's index;
    and the statistics over the last WINDOW_SECONDS are added up from the rows, one by one. With --url
    they are held against what a service answers.

    Exit status: 0 where all is right, 1 where something differs, one line each, 2 where the database
    cannot be read or the service not be asked.
    """
    settings = read_settings(os.environ)
    try:
        return asyncio.run(_verify(settings, _build(settings), url, token))
    except (AddressError, ValueError) as error:
        raise click.BadParameter(str(error)) from None
    except (StoreUnusable, ClientError) as error:
        sys.stderr.write(f"millrace: {error}\n")
        return _EXIT_UNUSABLE


def _build(settings: Settings) -> Verification:
    if settings.has_database_server:
        try:
            # Its driver is an extra: who keeps a file need not have it.
            from app.store.postgres_verification import PostgresVerification
        except ImportError:
            raise SettingsError(NO_DRIVER) from None
        return PostgresVerification(settings.database_url, may_trim=settings.retention_days > 0)
    path = settings.database_path
    if path is None:
        raise SettingsError("DATABASE_URL: memory:// keeps nothing that could be verified")
    return SQLiteVerification(path)


async def _verify(settings: Settings, verification: Verification, url: str | None, token: str) -> int:
    examined = await verification.examine()
    where = settings.database_path or settings.database
    click.echo(f"{where}: {examined.transactions} transactions, {examined.records} remembered answers")
    findings = [*examined.findings, *await _recount(settings, verification)]
    if url is not None:
        async with Service(url, token=token) as service:
            findings += await compare(service, verification)
    for note in examined.notes:
        click.echo(f"note: {note}")
    for finding in findings:
        click.echo(f"differs: {finding}")
    if not findings:
        click.echo("all right")
    return _EXIT_DIFFERS if findings else _EXIT_OK


async def _recount(settings: Settings, verification: Verification) -> list[str]:
    """Show the statistics by the rows; what of them a start would count otherwise."""
    from_ms = wall_clock_ms() - settings.window_seconds * 1000
    try:
        async with verification.snapshot() as snapshot:
            recounts = await snapshot.recount(from_ms)
            tallied = await snapshot.tally(from_ms)
    except StoreUnusable as error:
        # It could be read before, in part at least, and what is wrong has been said.
        return [f"statistics: {error}"]
    click.echo(f"over the last {settings.window_seconds} s, by the rows:")
    for line in shown(recounts):
        click.echo(f"  {line}")
    if not recounts:
        click.echo("  nothing")
    return list(tally_differences(recounts, tallied))
