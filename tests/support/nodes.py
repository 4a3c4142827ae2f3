"""Stores that share one PostgreSQL database, and what else may go on there."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from app.core.idempotency import Key, KeyRoute, Record
from app.core.transaction import Row, Transaction
from app.store.postgres import PostgresStore
from tests.support.postgres import ask

SEED = int(os.environ.get("MILLRACE_SEED", "0")) or random.randrange(1, 2**31)
ROUNDS = int(os.environ.get("MILLRACE_NODE_ROUNDS", "60"))
WAIT_SECONDS = 30.0 + ROUNDS / 10


def row(number: int) -> Row:
    return Row(number, Transaction(number % 2**40, 1000, "EUR", None))


def record(number: int) -> Record:
    return Record.of(Key.of(KeyRoute.TRANSACTION, None, b"%d" % number, b""), b"answer", 0)


@asynccontextmanager
async def opened(url: str, name: str | None = None) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, name)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def with_nodes(url: str, body: Callable[[PostgresStore, PostgresStore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT_SECONDS), opened(url, "a") as a, opened(url, "b") as b:
            await body(a, b)

    asyncio.run(main())


@asynccontextmanager
async def someone_else(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A transaction that is under way until it is left, and is rolled back then."""
    async with await AsyncConnection.connect(url) as connection:
        yield connection
        await connection.rollback()


async def until_waiting(url: str, number: int = 1) -> None:
    """Returns as soon as so many wait for a lock that another has."""
    while len(await asyncio.to_thread(ask, url, "SELECT 1 FROM pg_locks WHERE NOT granted")) < number:
        await asyncio.sleep(0)


def end_connections(url: str) -> None:
    ask(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
