"""`python -m app clean`: an empty database."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Final

import click

from app.core.timestamp import TIMESTAMP_MS_MAX, TIMESTAMP_MS_MIN
from app.environment import read_settings
from app.main import build_store
from app.settings import MEMORY, SettingsError
from app.store.base import Store, StoreFailed, StoreRefused, StoreUnusable
from app.store.sqlite import SQLiteStore

_EXIT_OK: Final = 0
_EXIT_FAILURE: Final = 1

_STEP_ROWS: Final = 10_000
# Longer than all of time: one slot of each currency.
_FOREVER_MS: Final = 2**62


@click.command(
    short_help="Delete all transactions.",
    epilog="""\b
Setting: DATABASE_URL. Stop the service first.
\b
Example:
  python -m app clean --yes""",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(yes: bool) -> int:
    """Delete all transactions in the database of DATABASE_URL, which no service has open.

    What idempotency keys stand for is kept, as by DELETE /transactions.
    """
    settings = read_settings(os.environ)
    if settings.database_url == MEMORY:
        raise SettingsError("DATABASE_URL: memory:// keeps nothing that could be deleted")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("deletes all transactions: to do that without being asked, say --yes")
    path = settings.database_path
    if path is not None and not path.is_file():
        return _give_up(f"there is no database at {path}")
    where = str(path or "the database of DATABASE_URL")
    os.umask(0o077)  # What is kept is nobody else's to read.
    try:
        # One loop for all of it. Where it asks it does not turn, so that an interrupt ends the question.
        with asyncio.Runner() as runner:
            store = build_store(settings)
            runner.run(store.open())
            try:
                number = runner.run(_count(store))
                question = f"{where} holds {number} transactions. Delete all of them?"
                if not yes and not click.confirm(question, err=True):
                    return _give_up("nothing was deleted")
                with click.progressbar(length=number, label="deleting", file=sys.stderr) as bar:
                    runner.run(_clear(store, bar.update))
            finally:
                runner.run(store.close())
    except (StoreUnusable, StoreRefused, StoreFailed) as error:
        return _give_up(str(error))
    click.echo(f"{where}: {number} transactions deleted")
    return _EXIT_OK


async def _count(store: Store) -> int:
    tallies = await store.tally(TIMESTAMP_MS_MIN, TIMESTAMP_MS_MAX, _FOREVER_MS)
    return sum(tally.summary.count for tally in tallies.found)


async def _clear(store: Store, advance: Callable[[int], None]) -> None:
    """Delete all at once, then give back the space step by step: cut short, the next start does it."""
    await store.clear()
    while await store.purge(_STEP_ROWS):
        advance(_STEP_ROWS)
    if isinstance(store, SQLiteStore):
        await store.vacuum()


def _give_up(reason: str) -> int:
    sys.stderr.write(f"millrace: {reason}\n")
    return _EXIT_FAILURE
