"""The embedded store: one SQLite file, one connection, synced before an append returns.

Rows are inserted on the event loop, where that is a matter of memory, and committed in a thread of
the store's own, where the disk may take its time: the interpreter's lock changes hands once a commit
instead of once a row, and a slow disk never stops the loop. Committing on the loop was a tenth faster
on a fast disk, and would hold every answer, of statistics and probes too, for as long as a slow one
takes.

An error while writing leaves the transaction rolled back (StoreRefused when the disk is full). Any
other error, of a sync above all, leaves unknown what the disk holds: SQLite would go on committing
after it, so the store refuses to (StoreFailed).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar, cast

import apsw
import msgspec

from app.core.idempotency import Key, Record
from app.core.identifier import TIME_SHIFT
from app.core.question import Page, Portion, Question
from app.core.summary import Summary
from app.core.transaction import Row
from app.store import migrations, sqlite_schema
from app.store import sqlite_statements as sql
from app.store.base import Recent, StoreFailed, StoreRefused, StoreUnusable, Tallies, Tally, Walk
from app.store.files import lock, make_directory, sync_directory
from app.store.sqlite_columns import PLAIN, DetailColumns, details_columns, record_columns
from app.store.sqlite_feed import Feed
from app.store.sqlite_index import Tip
from app.store.worker import Worker

Result = TypeVar("Result")

# The WAL is copied back once it holds 16 MiB: seldom enough not to be felt, soon enough to start fast.
_WAL_PAGES_MAX: Final = 4096
# What deletes rows writes many different pages: copied back in parts, they are not felt either.
_WAL_PAGES_MAX_OF_DELETIONS: Final = 512


class SQLiteStore:
    """Keeps rows in the file at `path`, which is made with its directory if need be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._worker = Worker("sqlite")
        self._connection: apsw.Connection
        self._lock_file = -1
        self._feed = Feed(path)
        self._secret = b""
        self._epoch = 0
        self._cleared_seq = 0
        self._last_seq = 0
        self._latest_ms = 0
        self._trims = 0
        self._wal_pages = 0
        self._has_failed = False
        self.applied: list[str] = []
        """The migrations that the database lacked when it was opened."""

    async def open(self) -> None:
        """Open or make the database and bring its schema up to date. Raises StoreUnusable."""
        await self._worker.run(self._open)
        await self._feed.open(self._tip)

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        """Commit rows and records; when this returns they have been synced to the disk."""
        details = await details_columns(rows)

        def insert() -> None:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(sql.INSERT, self._columns(rows, details))
            if records:
                self._connection.executemany(sql.REMEMBER, map(record_columns, records))

        self._guard(insert)
        await self._worker.run(self._commit)
        self._last_seq += len(rows)
        self._feed.note(self._tip)
        return self._epoch

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Record]:
        """Look them all up by one statement: each one's own would hand the interpreter over."""
        wanted = msgspec.json.encode([digest.hex() for digest in digests]).decode()

        def find() -> dict[bytes, Record]:
            found = self._connection.execute(sql.FIND, (wanted,))
            return {
                digest: Record(Key(digest, fingerprint), packed, created_ms)
                for digest, fingerprint, packed, created_ms in found
            }

        return await self._worker.run(lambda: self._guard(find))

    async def expire(self, before_ms: int, records_max: int) -> bool:
        """Delete some of the oldest records."""
        return await self._write(sql.EXPIRE, (before_ms, records_max)) == records_max

    async def clear(self) -> int:
        """Raise the deletion epoch: constant time, whatever the number of rows."""
        await self._write("UPDATE ledger SET epoch = epoch + 1, cleared_seq = ?", (self._last_seq,))
        self._epoch += 1
        self._cleared_seq = self._last_seq
        self._feed.note(self._tip)
        return self._epoch

    async def purge(self, rows_max: int) -> bool:
        """Delete some of the rows of earlier epochs; whether there are more."""
        return await self._write(sql.PURGE, (rows_max,)) == rows_max

    async def trim(self, before_ms: int, rows_max: int) -> bool:
        """Delete some of the oldest rows; one that a clock ahead has dated keeps those behind it."""
        trimmed = await self._write(sql.TRIM, ((before_ms << TIME_SHIFT).to_bytes(16), rows_max))
        self._trims += 1
        self._feed.note(self._tip)
        return trimmed == rows_max

    async def secret(self) -> bytes:
        """Was read when the database was opened."""
        return self._secret

    async def get(self, identifier: int) -> Row | None:
        """Ask the index."""
        return await self._feed.get(identifier)

    async def page(self, question: Question, portion: Portion) -> Page:
        """Ask the index."""
        return await self._feed.page(question, portion)

    async def vacuum(self) -> None:
        """Give the space of deleted rows back to the file system, by copying what is left."""
        await self._worker.run(
            lambda: self._guard(lambda: self._connection.execute("VACUUM").fetchall())
        )
        await self._feed.remake()

    async def probe(self) -> None:
        """Count the probes in the ledger's one row."""
        await self._write(sql.PROBE)

    async def tally(
        self, from_ms: int, to_ms: int, resolution_ms: int, node: str | None = None
    ) -> Tallies:
        """Sum up the rows of a span of time, in the database."""

        def tally() -> Tallies:
            found = self._connection.execute(sql.TALLY, (resolution_ms, from_ms, to_ms, self._epoch))
            tallies = [
                Tally(currency, slot_ms, Summary(count, (high << 32) + low, lowest, highest))
                for currency, slot_ms, count, high, low, lowest, highest in found
            ]
            return Tallies(self._epoch, tallies)

        return await self._worker.run(lambda: self._guard(tally))

    async def recent(self, from_ms: int, to_ms: int, rows_max: int, walk: Walk | None = None) -> Recent:
        """Read the next rows, all by one statement."""

        def begin() -> int:
            ((after,),) = self._connection.execute(sql.FIRST_RECENT, (from_ms,))
            return cast(int, after)

        def read() -> str:
            ((found,),) = self._connection.execute(sql.RECENT, (after, end, from_ms, to_ms, self._epoch))
            return cast(str, found)

        if walk is None:
            first = await self._worker.run(lambda: self._guard(begin))
            walk = Walk(first, max(first, self._last_seq))
        after, until = walk
        end = min(after + rows_max, until)
        transactions = sql.decode_recent(await self._worker.run(lambda: self._guard(read)))
        return Recent(transactions, None if end == until else Walk(end, until))

    async def close(self) -> None:
        """Copy the WAL back and close, so that the next start has nothing to recover."""
        await self._feed.close()
        try:
            await self._worker.run(self._close)
        finally:
            self._worker.stop()

    @property
    def feed_behind_rows(self) -> int:
        """How many rows the feed's index has not taken in yet."""
        return self._feed.behind_rows

    @property
    def _tip(self) -> Tip:
        return Tip(self._epoch, self._cleared_seq, self._last_seq, self._trims)

    def _columns(
        self, rows: Sequence[Row], details: Mapping[int, DetailColumns]
    ) -> Iterator[tuple[int | bytes | str | None, ...]]:
        epoch = self._epoch
        for seq, row in enumerate(rows, self._last_seq + 1):
            fact = row.transaction
            timestamp_ms = fact.timestamp_ms
            # Kept even where the rows are not: a bound that is too high costs the start some reading.
            if timestamp_ms > self._latest_ms:
                self._latest_ms = timestamp_ms
            yield (
                seq,
                row.id.to_bytes(16),
                epoch,
                fact.amount_units,
                fact.currency,
                timestamp_ms,
                self._latest_ms,
                fact.user_id,
                *(PLAIN if fact.details is None else details[row.id]),
            )

    async def _write(self, statement: str, parameters: tuple[int | bytes, ...] = ()) -> int:
        """Run one statement as a transaction, wholly in the thread; the number of rows it changed."""

        def write() -> int:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(statement, parameters)
            return self._connection.changes()

        def transaction() -> int:
            changes = self._guard(write)
            self._commit(is_deletion=True)
            return changes

        return await self._worker.run(transaction)

    def _commit(self, *, is_deletion: bool = False) -> None:
        self._guard(lambda: self._connection.execute("COMMIT"))
        # Rows are durable from here on. SQLite ignores errors of the checkpoints it makes by itself,
        # and one of them may be a failed sync: so the store makes them, and looks.
        if self._wal_pages >= (_WAL_PAGES_MAX_OF_DELETIONS if is_deletion else _WAL_PAGES_MAX):
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _checkpoint(self, mode: int) -> None:
        try:
            self._connection.wal_checkpoint(mode=mode)
        except (apsw.FullError, apsw.BusyError):
            pass  # The rows are in the WAL; a later checkpoint will find room or the lock free.
        except apsw.Error as error:
            raise self._failed(error) from error

    def _guard(self, call: Callable[[], Result]) -> Result:
        """Run a database call, leaving no transaction open behind an error."""
        if self._has_failed:
            raise StoreFailed("the store has failed before")
        try:
            return call()
        except (apsw.FullError, apsw.BusyError) as error:
            self._roll_back()
            if isinstance(error, apsw.FullError):
                # Once its pages are copied back the WAL is written from its start again.
                self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
            raise StoreRefused(str(error)) from error
        except apsw.Error as error:
            raise self._failed(error) from error

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: apsw.Error) -> StoreFailed:
        self._has_failed = True
        return StoreFailed(f"SQLite: {error}")

    def _open(self) -> None:
        sqlite_schema.check_version()
        try:
            make_directory(self._path.parent)
            self._lock_file = lock(self._path.with_name(self._path.name + "-lock"))
            self._connection = apsw.Connection(str(self._path))
            # Stepped to the end: each statement only runs when the one before it has been read out.
            self._connection.execute(sql.PRAGMAS).fetchall()
            self._connection.set_wal_hook(self._note_wal_pages)
            self._migrate()
            state = self._connection.execute(sql.STATE).fetchall()
            if len(state) != 1:
                raise StoreUnusable(f"cannot use {self._path}: its ledger table is damaged")
            self._epoch, self._cleared_seq, self._last_seq, self._latest_ms = (
                cast(int, value) for value in state[0]
            )
            # A first write shows that there is room to write, and makes the WAL; SQLite overlooks
            # an error when it syncs the directory that the WAL is then an entry of.
            self._connection.execute(sql.PROBE)
            self._secret = sqlite_schema.drawn_secret(self._connection)
            sync_directory(self._path.parent)
        except (OSError, apsw.Error, migrations.MigrationError) as error:
            raise StoreUnusable(f"cannot use {self._path}: {error}") from error

    def _migrate(self) -> None:
        try:
            self.applied = sqlite_schema.migrate(self._connection)
        except BaseException:
            self._roll_back()
            raise

    def _note_wal_pages(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _close(self) -> None:
        if self._has_failed:
            # The next start recovers from the WAL as it is; nothing is written to a failed disk.
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        else:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close()
        os.close(self._lock_file)
