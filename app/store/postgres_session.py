"""The one connection that writes: made again when it is lost, and of use while it holds the database.

Nothing waits for ever: a server that does not answer in time loses the connection. What was not asked
to be committed by then was not kept. Where it was, the outcome is open until the server has said it,
and there is nothing to be done but to ask for as long as that takes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from app.store import postgres_schema
from app.store.base import KeysTaken, StoreFailed, StoreRefused, StoreUnusable
from app.store.postgres_connection import Connection
from app.store.postgres_exchange import Exchange, is_last_word
from app.store.postgres_feed import Statement
from app.store.postgres_hold import HELD_SECONDS, Hold, value_of

# A commit that is under way for a second has nothing more taken in; this is for it to end at all.
ANSWER_SECONDS: Final = 10.0
# Shorter than that, so that a server which is only slow says so itself.
_STATEMENT_MS: Final = 8000
_LOCK_MS: Final = 3000
_PAUSE_SECONDS: Final = 0.02
_PAUSE_SECONDS_MAX: Final = 1.0

# Nothing of ours is wrong, and trying again later may succeed: a lost connection, a server that was
# made a replica, that lets nobody in, a deadlock, no room, a limit, a lock that is taken, an end.
_REFUSALS: Final = ("08", "25006", "28", "40", "53", "55P03", "57")

_PREPARE: Final = """
    SELECT set_config('statement_timeout', %s::text, false), set_config('lock_timeout', %s::text, false),
           -- So that a connection which is dead at this end is soon noticed at the other.
           set_config('tcp_keepalives_idle', '5', false),
           set_config('tcp_keepalives_interval', '5', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
               WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)
"""

_BACKEND: Final = """
    SELECT pid, backend_start::text, current_setting('fsync') = 'on',
           current_setting('server_encoding') = 'UTF8'
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""

# By its start, too: another may have come to the same number.
_END_BACKEND: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start::text = %s
"""

EPOCH: Final = "SELECT clearings FROM ledger"

_STATUS: Final = "SELECT coalesce(pg_xact_status(%s::text::xid8), '')"
_IN_PROGRESS: Final = "in progress"
_COMMITTED: Final = "committed"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Doubt(Exception):
    """The connection was lost when the commit had been asked for: it may have happened."""

    def __init__(self, transaction_id: int, epoch: int) -> None:
        super().__init__(transaction_id, epoch)
        self.transaction_id = transaction_id
        self.epoch = epoch
        """The deletion epoch that it would have been in."""


Trace = Callable[[bool], Statement]
"""Asks whether something was committed, given whether the server says so of its transaction's number.

The server may have forgotten the number, or have given it to another one after a crash.
"""


class _Backend(NamedTuple):
    pid: int
    start: str
    has_fsync: bool
    is_utf8: bool


class Session:
    """The connection that writes. One caller at a time, as of the store."""

    def __init__(self, conninfo: str, node: str | None) -> None:
        self.hold = Hold(node)
        self._conninfo = conninfo
        self._connection: AsyncConnection[Any] | None = None
        self._backend: _Backend | None = None
        self._has_failed = False

    async def open(self) -> int:
        """Connect, and hold the database; the deletion epoch of what is there. Raises StoreUnusable."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS + HELD_SECONDS):
                connection, backend = await self._connect()
                self._connection = connection
                if not backend.has_fsync:
                    raise StoreUnusable(
                        "cannot use PostgreSQL: fsync is off, so that it keeps nothing for sure"
                    )
                if not backend.is_utf8:
                    raise StoreUnusable(
                        "cannot use PostgreSQL: the encoding of the database must be UTF8"
                    )
                await postgres_schema.check(connection)
                if (obstacle := await self.hold.take(connection)) is not None:
                    raise StoreUnusable(obstacle)
                self._backend = backend
                await self.hold.begin(connection)
                return int(await value_of(connection, EPOCH))
        except (psycopg.Error, TimeoutError) as error:
            await self.close()
            raise StoreUnusable(f"cannot use PostgreSQL: {line(error)}") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    @asynccontextmanager
    async def connected(self, seconds: float | None = None) -> AsyncIterator[AsyncConnection[Any]]:
        """The connection. What was begun on it and is lost is as if it had not been: not for a COMMIT.

        Raises StoreRefused and StoreFailed.
        """
        if self._has_failed:
            raise StoreFailed("the store has failed before")
        is_sound = False
        try:
            async with asyncio.timeout(seconds or ANSWER_SECONDS):
                yield await self._reconnected()
            is_sound = True
        except TimeoutError:
            raise StoreRefused("PostgreSQL: no answer in time") from None
        except psycopg.Error as error:
            is_sound = not is_lost(error)
            raise self._judged(error) from error
        finally:
            if not is_sound:
                await self.close()

    async def copy(self, sources: Sequence[tuple[bytes, Iterator[bytes]]], epoch: int) -> int:
        """Commit what these statements read, all of it or nothing; the deletion epoch it is in.

        That is the last one that is known here, unless there are others to begin one. Raises KeysTaken
        and Doubt, too.
        """
        known = epoch if self.hold.is_alone else None
        exchange: Exchange | None = None
        try:
            async with self.connected() as connection:
                exchange = Exchange(connection.pgconn, sources, known)
                await exchange.run()
                return exchange.epoch
        except StoreRefused as error:
            if exchange is None or not exchange.is_in_doubt:
                raise
            raise Doubt(exchange.transaction_id, exchange.epoch) from error

    async def outcome(self, doubt: Doubt, trace: Trace) -> bool:
        """Whether a transaction was committed, which its trace tells once it is no longer under way.

        Takes as long as the server takes to say so.
        """
        log.warning("commit_in_doubt")
        pause_seconds = _PAUSE_SECONDS
        while True:
            with contextlib.suppress(psycopg.Error, TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    answer = await self._ask(doubt, trace)
                if answer is not None:
                    log.info("commit_settled", is_kept=answer)
                    return answer
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)

    async def _ask(self, doubt: Doubt, trace: Trace) -> bool | None:
        """As `outcome`; None while the transaction is under way. On a connection of its own."""
        connection, _ = await self._connect()
        try:
            await self._end_backend(connection)
            try:
                status = await value_of(connection, _STATUS, (str(doubt.transaction_id),))
            except psycopg.errors.InvalidParameterValue:
                # A server that came back from a crash before that number has forgotten it.
                status = ""
            if status == _IN_PROGRESS:
                return None
            return bool(await value_of(connection, *trace(status == _COMMITTED)))
        finally:
            await connection.close()

    async def _reconnected(self) -> AsyncConnection[Any]:
        if self._connection is not None and not _has_ended(self._connection):
            return self._connection
        await self.close()
        connection, backend = await self._connect()
        self._connection = connection
        await self._end_backend(connection)
        if (obstacle := await self.hold.take(connection)) is not None:
            raise self._failed(obstacle)
        self._backend = backend
        if not await self.hold.is_unbroken(connection):
            raise self._failed("another process has used the database meanwhile")
        return connection

    async def _connect(self) -> tuple[AsyncConnection[Any], _Backend]:
        connection = await Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        try:
            await connection.execute(_PREPARE, (_STATEMENT_MS, _LOCK_MS))
            backend = _Backend(*await row_of(await connection.execute(_BACKEND)))
        except BaseException:
            await connection.close()
            raise
        return connection, backend

    async def _end_backend(self, connection: AsyncConnection[Any]) -> None:
        """End the server's process of the connection before, which may not know that it is lost."""
        if self._backend is not None:
            await connection.execute(_END_BACKEND, self._backend[:2])

    def _judged(self, error: psycopg.Error) -> Exception:
        if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
            return StoreRefused(f"PostgreSQL: {line(error)}")
        if isinstance(error, psycopg.errors.UniqueViolation) and error.diag.table_name == "idempotency":
            return KeysTaken("a key has been taken meanwhile")
        if (error.sqlstate or "").startswith(_REFUSALS):
            return StoreRefused(f"PostgreSQL: {line(error)}")
        return self._failed(line(error))

    def _failed(self, reason: str) -> StoreFailed:
        self._has_failed = True
        return StoreFailed(f"PostgreSQL: {reason}")


async def row_of(cursor: psycopg.AsyncCursor[Any]) -> tuple[Any, ...]:
    """The one row of an answer."""
    row = await cursor.fetchone()
    if row is None:
        raise psycopg.DataError("a row is missing")
    return tuple(row)


def _has_ended(connection: AsyncConnection[Any]) -> bool:
    """Whether the server has closed it meanwhile: then another one does as well, and nothing is lost."""
    try:
        # Its last words come before the end.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return connection.closed


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection is of no more use."""
    return error.sqlstate is None or is_last_word(error)


def line(error: BaseException) -> str:
    """What an error says, in a line: those below it may quote what was sent."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip()
