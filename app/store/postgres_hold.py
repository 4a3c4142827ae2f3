"""Who uses the database: one process alone, or several that each have a name, the nodes.

A process alone has the ledger's lock to itself. Nodes share it, and each has the lock of its name. A
lock goes with the connection it was taken on, and may be another's until it is taken again: by how often
nodes were opened, a process learns whether somebody was there meanwhile.
"""

import asyncio
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import Params

# The lock of a process that was killed lives until its server process notices.
HELD_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.02

ALONE: Final = 0
"""The number of a process that has no name."""

# The tables' numbers are part of the locks' names, so that several services may share a database by
# schemas.
_LEDGER: Final = "1297042529, 'ledger'::regclass::oid::int"
_LOCK_ALONE: Final = f"SELECT pg_try_advisory_lock({_LEDGER})"
_LOCK_SHARED: Final = f"SELECT pg_try_advisory_lock_shared({_LEDGER})"
_LOCK_NAME: Final = "SELECT pg_try_advisory_lock('nodes'::regclass::oid::int, %s)"
LOCK_ALONE_FOR_NOW: Final = f"SELECT pg_try_advisory_xact_lock({_LEDGER})"
"""As a process alone has it, until the end of the transaction."""

_NUMBER: Final = "SELECT number FROM nodes WHERE name = %s"
_NAME: Final = "INSERT INTO nodes (name) VALUES (%s) ON CONFLICT DO NOTHING"

_OPEN: Final = "UPDATE nodes SET openings = openings + 1 WHERE number = %s"
# They only grow: where none of them has, their sum has not.
_OPENINGS: Final = """
    SELECT sum(openings)::bigint FROM nodes WHERE number = %(number)s OR number = 0 OR %(number)s = 0
"""


class Hold:
    """What a process must have to use the database, under its name or without one."""

    def __init__(self, node: str | None) -> None:
        self._node = node
        self._openings = 0
        self.number = ALONE
        """What stands for the name in the rows, once it is known."""

    @property
    def is_alone(self) -> bool:
        """Whether nobody else may be there at the same time."""
        return self._node is None

    async def take(self, connection: AsyncConnection[Any]) -> str | None:
        """Take it on this connection; what is in the way, where it is that for some seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HELD_SECONDS
        attempt = self._take_alone if self.is_alone else self._take_shared
        while not await attempt(connection):
            if loop.time() > deadline:
                return await self._obstacle(connection)
            await asyncio.sleep(_PAUSE_SECONDS)
        return None

    async def begin(self, connection: AsyncConnection[Any]) -> None:
        """Begin to use what was taken."""
        await connection.execute(_OPEN, (self.number,))
        self._openings = await self._count(connection)

    async def is_unbroken(self, connection: AsyncConnection[Any]) -> bool:
        """Whether, since it began, nobody was there who must not be there at the same time."""
        return await self._count(connection) == self._openings

    async def _take_alone(self, connection: AsyncConnection[Any]) -> bool:
        return bool(await value_of(connection, _LOCK_ALONE))

    async def _take_shared(self, connection: AsyncConnection[Any]) -> bool:
        # To have it several times is as good.
        if not await value_of(connection, _LOCK_SHARED):
            return False
        if self.number == ALONE:
            self.number = await self._numbered(connection)
        return bool(await value_of(connection, _LOCK_NAME, (self.number,)))

    async def _numbered(self, connection: AsyncConnection[Any]) -> int:
        names = (self._node,)
        if await (await connection.execute(_NUMBER, names)).fetchone() is None:
            await connection.execute(_NAME, names)
        return int(await value_of(connection, _NUMBER, names))

    async def _obstacle(self, connection: AsyncConnection[Any]) -> str:
        is_shared = await value_of(connection, _LOCK_SHARED)
        if self.is_alone and is_shared:
            return "the database is in use by nodes: stop them first, or be one of them, with a NODE_ID"
        if self.is_alone:
            return "the database is in use by another process"
        if is_shared:
            return "another process runs as this node: each needs a NODE_ID of its own"
        return "the database is in use by a process that runs alone, and is no node"

    async def _count(self, connection: AsyncConnection[Any]) -> int:
        return int(await value_of(connection, _OPENINGS, {"number": self.number}))


async def value_of(
    connection: AsyncConnection[Any], statement: str, parameters: Params | None = None
) -> Any:  # noqa: ANN401 - what it selects
    """The first column of a statement's one row."""
    row = await (await connection.execute(statement, parameters)).fetchone()
    if row is None:
        raise psycopg.DataError("a row is missing")
    return row[0]
