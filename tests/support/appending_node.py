"""A process that appends to a PostgreSQL database as a node, and says what was kept: `URL NAME`.

Each line it writes is the id of a row, once that is kept.
"""

import asyncio
import secrets
import sys
import time

from app.core.identifier import IdentifierSource
from app.core.transaction import Row, Transaction
from app.store.postgres import PostgresStore

BATCH_ROWS = 20


async def append_without_end(url: str, node: str) -> None:
    store = PostgresStore(url, node)
    await store.open()
    identifiers = IdentifierSource(secrets.randbits(48))
    fact = Transaction(1, 1000, "EUR", "u-1")
    while True:
        ids = identifiers.take(time.time_ns() // 1_000_000, BATCH_ROWS)
        await store.append([Row(each, fact) for each in ids])
        sys.stdout.writelines(f"{each}\n" for each in ids)
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(append_without_end(*sys.argv[1:]))
