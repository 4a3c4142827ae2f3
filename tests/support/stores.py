"""Every store, and how a test has one that is open."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from app.core.transaction import Row, Transaction
from app.store.base import MemoryStore, Store
from app.store.postgres import PostgresStore
from app.store.sqlite import SQLiteStore
from tests.support.postgres import database_url, needs_postgres

AnyStore = TypeVar("AnyStore", bound=Store)
Opener = Callable[[Path], Store]

MEMORY = pytest.param(lambda path: MemoryStore(), id="memory")
DURABLE_STORES = [
    pytest.param(lambda path: SQLiteStore(path / "ledger.db"), id="sqlite"),
    pytest.param(lambda path: PostgresStore(database_url(path)), id="postgresql", marks=needs_postgres),
]
STORES = [MEMORY, *DURABLE_STORES]


def row(number: int, timestamp_ms: int = 1000, amount_units: int = 1, currency: str = "EUR") -> Row:
    transaction = Transaction(amount_units, timestamp_ms, currency, f"user {number}")
    return Row(number, transaction)


@asynccontextmanager
async def opened(store: AnyStore) -> AsyncIterator[AnyStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def with_store(
    opener: Callable[[Path], AnyStore], path: Path, body: Callable[[AnyStore], Awaitable[None]]
) -> None:
    """Run a test on a store at a path."""

    async def main() -> None:
        async with opened(opener(path)) as store:
            await body(store)

    asyncio.run(main())


async def nothing(_: Store) -> None:
    """All that is to happen to a store that is opened and closed."""


def with_postgres(url: str, body: Callable[[PostgresStore], Awaitable[None]]) -> None:
    """Run a test on a database, bounded in time."""

    async def main() -> None:
        async with asyncio.timeout(30), opened(PostgresStore(url)) as store:
            await body(store)

    asyncio.run(main())


def with_sqlite(path: Path, body: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    """Run a test on the file at a path."""
    with_store(SQLiteStore, path, body)
