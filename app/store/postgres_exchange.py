"""One commit in two round trips: several COPYs in a simple query, spoken through libpq on the loop.

PostgreSQL runs the statements of one simple query as one transaction, and commits when it has the end
of the last COPY. A driver's own calls take four to six round trips for that, and twice the time where
single transactions are posted. psycopg forbids COPY beside other statements, so this speaks to the
libpq that it wraps.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

# Both are answered together with the first COPY, so before anything can have been committed.
_BEGIN: Final = b"SELECT pg_current_xact_id(); "
# Between the epoch that is read and the commit comes no deletion, which would need that lock for itself.
_BEGIN_AMONG_OTHERS: Final = (
    b"LOCK TABLE transactions IN ROW EXCLUSIVE MODE; "
    b"SELECT pg_current_xact_id(), clearings FROM ledger; "
)

# A session that is ended may have committed just before.
_LAST_WORDS: Final = ("57P", "08")


class Exchange:
    """Some COPY statements, each with what it is to read, that are committed together.

    `epoch`: the deletion epoch, where nobody else can begin another; or None, and the server says it.
    """

    def __init__(
        self, pgconn: PGconn, sources: Sequence[tuple[bytes, Iterator[bytes]]], epoch: int | None
    ) -> None:
        self._pgconn = pgconn
        self._socket = pgconn.socket
        begin = _BEGIN_AMONG_OTHERS if epoch is None else _BEGIN
        self._statement = begin + b"; ".join(statement for statement, _ in sources)
        self._sources = [pieces for _, pieces in sources]
        self._loop = asyncio.get_running_loop()
        self._readable: asyncio.Future[None] | None = None
        self._lost: psycopg.OperationalError | None = None
        self.transaction_id = 0
        self.epoch = epoch or 0
        """The deletion epoch that all of it is kept in."""
        self.is_in_doubt = False
        """Whether the commit was asked for, and the server has not said what became of it."""

    async def run(self) -> None:
        """Raises psycopg.Error: the server's, or OperationalError where the connection is lost.

        After anything but an error of the server, the connection is to be closed.
        """
        self._loop.add_reader(self._socket, self._on_readable)
        try:
            self._pgconn.send_query(self._statement)
            await self._flush()
            await self._answer()
        finally:
            self._loop.remove_reader(self._socket)

    async def _answer(self) -> None:
        sources = iter(self._sources)
        left = len(self._sources)
        error: psycopg.Error | None = None
        while (result := await self._result()) is not None:
            if result.status == ExecStatus.COPY_IN:
                left -= 1
                await self._feed(next(sources), is_last=not left)
            elif result.status == ExecStatus.TUPLES_OK:
                self.transaction_id = int(result.get_value(0, 0) or b"0")
                if result.nfields > 1:
                    self.epoch = int(result.get_value(0, 1) or b"0")
            elif result.status != ExecStatus.COMMAND_OK:
                error = error or error_from_result(result)
        if error is None:
            self.is_in_doubt = False
            return
        self.is_in_doubt = self.is_in_doubt and (error.sqlstate is None or is_last_word(error))
        raise error

    async def _feed(self, pieces: Iterator[bytes], *, is_last: bool) -> None:
        for number, piece in enumerate(pieces):
            if number:
                await self._flush()
                await asyncio.sleep(0)
            self._pgconn.put_copy_data(piece)
        self.is_in_doubt = is_last
        self._pgconn.put_copy_end()
        await self._flush()

    async def _result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            self._check()
            self._readable = self._loop.create_future()
            await self._readable
        self._check()
        return self._pgconn.get_result()

    async def _flush(self) -> None:
        while self._pgconn.flush():
            self._check()
            writable: asyncio.Future[None] = self._loop.create_future()
            self._loop.add_writer(self._socket, _wake, writable)
            try:
                await writable
            finally:
                self._loop.remove_writer(self._socket)

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _on_readable(self) -> None:
        """Read what has come, while sending too: the server may have to get rid of it first."""
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError as error:
            self._lost = error
            self._loop.remove_reader(self._socket)
        if self._readable is not None and (self._lost is not None or not self._pgconn.is_busy()):
            _wake(self._readable)


def is_last_word(error: psycopg.Error) -> bool:
    """Whether it ends the session, of which it does not say what became of its transaction."""
    return (error.sqlstate or "").startswith(_LAST_WORDS)


def _wake(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
