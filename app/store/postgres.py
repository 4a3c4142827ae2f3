"""The shared store: a PostgreSQL database, which has synced its log before an append returns.

One connection writes, and holds the database: for this process alone, or among nodes that each have a
name; what those do at the same time the server puts in order. Some others read beside it. Where the
server is not there nothing is kept, and it is looked for again by the next call.
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.core.idempotency import Key, Record
from app.core.identifier import TIME_SHIFT
from app.core.question import Page, Portion, Question
from app.core.summary import Figures
from app.core.transaction import Row, Transaction
from app.store import postgres_figures, postgres_schema
from app.store.base import SECRET_BYTES, Recent, StoreRefused, StoreUnusable, Tallies, Walk
from app.store.postgres_copy import COPY_RECORDS, COPY_ROWS, packed_records, packed_rows
from app.store.postgres_feed import GET, Statement, page_statements, read_row, total_statement
from app.store.postgres_figures import TALLY_SECONDS
from app.store.postgres_readers import Readers
from app.store.postgres_session import Doubt, Session, Trace, line, row_of

_CONNECT_SECONDS: Final = 3

_FIND: Final = "SELECT digest, fingerprint, packed, created_ms FROM idempotency WHERE digest = ANY(%s)"

# One node does it at a time; another that comes meanwhile changes nothing, and has nothing to do.
_EXPIRE: Final = """
    DELETE FROM idempotency WHERE digest IN
        (SELECT digest FROM idempotency WHERE created_ms < %s ORDER BY created_ms LIMIT %s)
    AND (SELECT pg_try_advisory_xact_lock('idempotency'::regclass::oid::int, 0))
"""

_TRIM: Final = """
    DELETE FROM transactions WHERE id IN (SELECT id FROM transactions WHERE id < %s ORDER BY id LIMIT %s)
    AND (SELECT pg_try_advisory_xact_lock('transactions'::regclass::oid::int, 0))
"""

_NEWEST: Final = "SELECT id FROM transactions ORDER BY id DESC LIMIT 1"

_RECENT: Final = """
    SELECT timestamp_ms, id, amount_units, currency, user_id FROM transactions
    WHERE (timestamp_ms, id) > (%s, %s) AND timestamp_ms <= %s ORDER BY timestamp_ms, id LIMIT %s
"""
_ID_BITS: Final = 128

_HAS_ROW: Final = "EXISTS (SELECT FROM transactions WHERE id = %s)"
_HAS_RECORD: Final = (
    "EXISTS (SELECT FROM idempotency WHERE digest = %s AND fingerprint = %s AND packed = %s)"
)

_CLEAR: Final = """
    UPDATE ledger SET clearings = clearings + 1 RETURNING pg_current_xact_id()::text, clearings
"""


class PostgresStore:
    """Keeps rows in the database that a URL names, as libpq reads it: alone, or as the node of a name.

    As a node it is a SharedStore. Without a name it has none beside it.
    """

    def __init__(self, url: str, node: str | None = None) -> None:
        """Raises StoreUnusable where libpq cannot read the URL."""
        self._conninfo = conninfo_of(url)
        self._session = Session(self._conninfo, node)
        self._readers = Readers(self._conninfo)
        self._epoch = 0

    async def open(self) -> None:
        """Connect, and hold the database. Its schema must be up to date. Raises StoreUnusable."""
        self._epoch = await self._session.open()

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        """Commit rows and records; when this returns the server has synced them to its disk."""
        sources: list[tuple[bytes, Iterator[bytes]]] = []
        # First, as theirs are the keys that may be taken.
        if records:
            sources.append((COPY_RECORDS, packed_records(records)))
        if rows:
            sources.append((COPY_ROWS, packed_rows(rows, self._session.hold.number)))
        if not sources:
            return self._epoch
        try:
            self._epoch = await self._session.copy(sources, self._epoch)
        except Doubt as doubt:
            if not await self._session.outcome(doubt, _trace(rows, records, doubt.epoch)):
                raise StoreRefused("PostgreSQL: the connection was lost before the commit") from doubt
            self._epoch = doubt.epoch
        return self._epoch

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Record]:
        """Look them all up by one statement."""
        if not digests:
            return {}
        async with self._session.connected() as connection:
            cursor = await connection.execute(_FIND, (list(digests),), binary=True)
            return {
                digest: Record(Key(digest, fingerprint), packed, created_ms)
                async for digest, fingerprint, packed, created_ms in cursor
            }

    async def expire(self, before_ms: int, records_max: int) -> bool:
        """Delete some of the oldest records."""
        return await self._change(_EXPIRE, (before_ms, records_max)) == records_max

    async def clear(self) -> int:
        """Truncate the table, which waits for those who read it, but not for long."""
        doubt: Doubt | None = None
        clearings = 0
        try:
            async with self._session.connected() as connection, connection.transaction():
                identifier, clearings = await row_of(await connection.execute(_CLEAR))
                await connection.execute("TRUNCATE transactions")
                doubt = Doubt(int(identifier), clearings)
        except StoreRefused:
            # Another node's deletion in its place has deleted as much.
            question = Statement("SELECT clearings >= %s FROM ledger", (clearings,))
            if doubt is None or not await self._session.outcome(doubt, lambda _: question):
                raise
        self._epoch = clearings
        return self._epoch

    async def purge(self, rows_max: int) -> bool:
        """Nothing is left to give back."""
        return False

    async def probe(self) -> None:
        """Count the probes in the ledger's one row."""
        await self._change("UPDATE ledger SET probes = probes + 1")

    async def tally(
        self, from_ms: int, to_ms: int, resolution_ms: int, node: str | None = None
    ) -> Tallies:
        """Sum them up in the database, on a connection of its own: neither posts nor pages wait."""
        nameless = None if self._session.hold.is_alone else ""

        async def read(connection: AsyncConnection[Any]) -> Tallies:
            return await postgres_figures.tally(
                connection, from_ms, to_ms, resolution_ms, node, nameless
            )

        return await self._readers.run_long(read, TALLY_SECONDS)

    async def user_figures(self, user_id: str, from_ms: int, currency: str | None = None) -> Figures:
        """Sum them up on a connection of the readers."""

        async def read(connection: AsyncConnection[Any]) -> Figures:
            return await postgres_figures.user_figures(connection, user_id, from_ms, currency)

        return await self._readers.run(read)

    async def trim(self, before_ms: int, rows_max: int) -> bool:
        """Delete some of the rows with the least ids."""
        first = UUID(int=max(before_ms, 0) << TIME_SHIFT)
        return await self._change(_TRIM, (first, rows_max)) == rows_max

    async def secret(self) -> bytes:
        """Draw it where there is none; of two at once the first one's holds."""
        async with self._session.connected() as connection:
            await connection.execute(
                "INSERT INTO secret (value) VALUES (%s) ON CONFLICT DO NOTHING",
                (secrets.token_bytes(SECRET_BYTES),),
            )
            (value,) = await row_of(await connection.execute("SELECT value FROM secret"))
            return bytes(value)

    async def get(self, identifier: int) -> Row | None:
        """Look it up, on a connection of the readers."""

        async def read(connection: AsyncConnection[Any]) -> Row | None:
            columns = await (await connection.execute(GET, (UUID(int=identifier),))).fetchone()
            return None if columns is None else read_row(columns)

        return await self._readers.run(read)

    async def page(self, question: Question, portion: Portion) -> Page:
        """Look them up, on a connection of the readers."""

        async def read(connection: AsyncConnection[Any]) -> Page:
            found: Sequence[Any] = ()
            for statement in page_statements(question, portion):
                found = await (await connection.execute(statement.text, statement.parameters)).fetchall()
                if len(found) > portion.limit:
                    break
            total: int | None = None
            if portion.with_total:
                statement = total_statement(question)
                (total,) = await row_of(await connection.execute(statement.text, statement.parameters))
            rows = [read_row(columns) for columns in found[: portion.limit]]
            return Page(rows, len(found) > portion.limit, total)

        return await self._readers.run(read)

    async def recent(self, from_ms: int, to_ms: int, rows_max: int, walk: Walk | None = None) -> Recent:
        """Read the next rows of the span, by time; those that came since the walk began are left out.

        That is told by their ids: no process is to be given a clock that is behind the one before. Among
        nodes, whose clocks differ, it is no use: there is `user_figures`.
        """
        async with self._session.connected() as connection:
            if walk is None:
                newest = await (await connection.execute(_NEWEST)).fetchone()
                if newest is None:
                    return Recent([], None)
                walk = Walk((from_ms << _ID_BITS) - 1, newest[0].int)
            timestamp_ms, identifier = divmod(walk.after, 1 << _ID_BITS)
            span = (timestamp_ms, UUID(int=identifier), to_ms, rows_max)
            found = await (await connection.execute(_RECENT, span)).fetchall()
        transactions = [
            Transaction(amount_units, each_ms, currency, user_id)
            for each_ms, each_id, amount_units, currency, user_id in found
            if user_id is not None and each_id.int <= walk.until
        ]
        if len(found) < rows_max:
            return Recent(transactions, None)
        last_ms, last_id = found[-1][:2]
        return Recent(transactions, Walk(last_ms << _ID_BITS | last_id.int, walk.until))

    async def close(self) -> None:
        """Leave the connections."""
        await self._readers.close()
        await self._session.close()

    async def _change(self, statement: str, parameters: Sequence[int | UUID] = ()) -> int:
        """Run one statement as a transaction; the number of rows it changed.

        Where the connection is lost it may have happened nevertheless: only for what may happen twice.
        """
        async with self._session.connected() as connection:
            return (await connection.execute(statement, parameters)).rowcount


async def migrate(url: str) -> list[str]:
    """Bring a database up to date; the names of the migrations that it lacked. Raises StoreUnusable."""
    try:
        async with await AsyncConnection.connect(conninfo_of(url), autocommit=True) as connection:
            return await postgres_schema.migrate(connection)
    except psycopg.Error as error:
        raise StoreUnusable(f"cannot use PostgreSQL: {line(error)}") from None


def conninfo_of(url: str) -> str:
    """What is to be connected to, with what the URL leaves open and libpq would wait for too long."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Without what libpq says: it may quote the password.
        raise StoreUnusable("DATABASE_URL: is not a URL that PostgreSQL's library can read") from None
    given.setdefault("connect_timeout", _CONNECT_SECONDS)
    given.setdefault("application_name", "millrace")
    given["client_encoding"] = "UTF8"
    return make_conninfo("", **given)


def _trace(rows: Sequence[Row], records: Sequence[Record], epoch: int) -> Trace:
    """Asks whether an append has left something: all of it is there then.

    Of its rows nothing is left after another node's deletion. Its records are, and where it has none the
    server is believed: either answer is true then of what there is, as the deletion has taken the rows.
    """

    def trace(is_committed: bool) -> Statement:
        kept = Statement("%s", (is_committed,))
        if records:
            key, packed = records[0].key, records[0].packed
            kept = Statement(_HAS_RECORD, (key.digest, key.fingerprint, packed))
        if not rows:
            return Statement(f"SELECT {kept.text}", kept.parameters)
        text = f"SELECT {_HAS_ROW} OR (clearings > %s AND {kept.text}) FROM ledger"
        return Statement(text, (UUID(int=rows[0].id), epoch, *kept.parameters))

    return trace
