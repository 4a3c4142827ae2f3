"""The connections that read: a few, made when they are needed, and kept until they are lost.

psycopg's own pool keeps a process that ends from ending while it is trying to connect.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection

from app.store.base import StoreRefused
from app.store.postgres_connection import Connection
from app.store.postgres_session import is_lost, line

Result = TypeVar("Result")
Read = Callable[[AsyncConnection[Any]], Awaitable[Result]]

CONNECTIONS_MAX: Final = 4
WAITING_MAX: Final = 64
# Waiting for a connection, making it and reading all have to fit.
ANSWER_SECONDS: Final = 5.0
STATEMENT_MS: Final = 4000

# The values of a question are all the planner has to go by: with others another plan is right.
_PREPARE: Final = """
    SELECT set_config('statement_timeout', %s::text, false),
           set_config('default_transaction_read_only', 'on', false),
           set_config('plan_cache_mode', 'force_custom_plan', false)
"""


class Readers:
    """Lends connections to reads, any number of which may come at once."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._idle: list[AsyncConnection[Any]] = []
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._waiting = 0

    async def run(self, read: Read[Result]) -> Result:
        """What a read finds. Raises StoreRefused, whatever goes wrong: it has changed nothing."""
        if self._waiting >= WAITING_MAX:
            raise StoreRefused("PostgreSQL: too many questions are waiting")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._waiting += 1
                try:
                    await self._places.acquire()
                finally:
                    self._waiting -= 1
                try:
                    return await self._read(read)
                finally:
                    self._places.release()
        except TimeoutError:
            raise StoreRefused("PostgreSQL: no answer in time") from None
        except psycopg.Error as error:
            raise StoreRefused(f"PostgreSQL: {line(error)}") from error

    async def run_long(self, read: Read[Result], seconds: float) -> Result:
        """As `run`, for what takes longer: on a connection of its own, so that the others go on."""
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connect()
                try:
                    return await read(connection)
                finally:
                    await connection.close()
        except TimeoutError:
            raise StoreRefused("PostgreSQL: no answer in time") from None
        except psycopg.Error as error:
            raise StoreRefused(f"PostgreSQL: {line(error)}") from error

    async def close(self) -> None:
        """Leave those that nobody uses; whoever uses one leaves it."""
        while self._idle:
            await self._idle.pop().close()

    async def _read(self, read: Read[Result]) -> Result:
        while self._idle:
            try:
                return await self._lend(self._idle.pop(), read)
            except psycopg.OperationalError as error:
                # Lost while it was idle, perhaps, and then so are the others: that is no refusal.
                if not is_lost(error):
                    raise
        return await self._lend(await self._connect(), read, is_new=True)

    async def _connect(self) -> AsyncConnection[Any]:
        return await Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)

    async def _lend(
        self, connection: AsyncConnection[Any], read: Read[Result], *, is_new: bool = False
    ) -> Result:
        is_sound = False
        try:
            if is_new:
                await connection.execute(_PREPARE, (STATEMENT_MS,))
            result = await read(connection)
            is_sound = True
            return result
        except psycopg.Error as error:
            is_sound = not is_lost(error)
            raise
        finally:
            if is_sound:
                self._idle.append(connection)
            else:
                await connection.close()
