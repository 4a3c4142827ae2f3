"""`python -m app seed`: synthetic transactions for trying the service out."""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import click

from app.commands.synthetic import Span, synthetic_transactions
from app.core.identifier import IdentifierSource
from app.core.transaction import Row, Transaction
from app.environment import read_settings
from app.main import build_store, wall_clock_ms
from app.settings import MEMORY, SettingsError
from app.store.base import Store, StoreFailed, StoreRefused, StoreUnusable

_EXIT_OK: Final = 0
_EXIT_FAILURE: Final = 1
_EXIT_INTERRUPTED: Final = 130

_BATCH_ROWS: Final = 2000
_DAY_MS: Final = 86_400_000


@click.command(
    short_help="Write synthetic transactions.",
    epilog="""\b
Settings: DATABASE_URL, EXTRA_CURRENCIES. Stop the service first.
\b
Example:
  python -m app seed --rows 100000 --days 7""",
)
@click.option("--rows", type=click.IntRange(1), required=True, help="How many transactions.")
@click.option(
    "--users", type=click.IntRange(1), default=1000, show_default=True, help="Of so many users, at most."
)
@click.option(
    "--days", type=click.IntRange(1, 36_500), default=30, show_default=True, help="Over the last days."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another one gives other rows.")
def seed(rows: int, users: int, days: int, seed: int) -> int:
    """Write synthetic transactions to the database of DATABASE_URL, which no service has open.

    The metadata of each says `"synthetic": true`. An interrupt ends it between two batches.
    """
    settings = read_settings(os.environ)
    if settings.database_url == MEMORY:
        raise SettingsError("DATABASE_URL: memory:// would forget them with this command's end")
    os.umask(0o077)  # What is kept is nobody else's to read.
    now_ms = wall_clock_ms()
    span = Span(now_ms - days * _DAY_MS, now_ms)
    transactions = synthetic_transactions(rows, users, span, seed, settings.currencies)
    started = time.monotonic()
    with click.progressbar(length=rows, label="seeding", file=sys.stderr) as bar:
        try:
            written = asyncio.run(_write(build_store(settings), transactions, bar.update))
        except (StoreUnusable, StoreRefused, StoreFailed) as error:
            failure = str(error)
        else:
            failure = ""
    if failure:
        sys.stderr.write(f"millrace: {failure}\n")
        return _EXIT_FAILURE
    seconds = time.monotonic() - started
    click.echo(f"{written} of {rows} transactions in {seconds:.1f} s, {written / seconds:.0f} a second")
    return _EXIT_OK if written == rows else _EXIT_INTERRUPTED


async def _write(
    store: Store, transactions: Iterator[Transaction], advance: Callable[[int], None]
) -> int:
    """Write until all are kept, or a signal comes; how many are kept."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    identifiers = IdentifierSource(secrets.randbits(48))
    written = 0
    await store.open()
    try:
        while not stopped.is_set() and (batch := list(islice(transactions, _BATCH_ROWS))):
            ids = identifiers.take(wall_clock_ms(), len(batch))
            await store.append([Row(*pair) for pair in zip(ids, batch, strict=True)])
            written += len(batch)
            advance(len(batch))
    finally:
        await store.close()
    return written
