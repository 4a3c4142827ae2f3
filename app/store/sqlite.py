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

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar, cast

import apsw
import msgspec

from app.core.activity import Details, terms
from app.core.idempotency import Key, Record
from app.core.identifier import TIME_SHIFT
from app.core.question import Page, Portion, Question
from app.core.summary import Summary
from app.core.transaction import Row, Transaction
from app.store import migrations
from app.store.base import (
    SECRET_BYTES,
    Recent,
    StoreFailed,
    StoreRefused,
    StoreUnusable,
    Tally,
    Walk,
)
from app.store.files import lock, make_directory, sync_directory
from app.store.sqlite_feed import Feed
from app.store.sqlite_index import Tip
from app.store.worker import Worker

Result = TypeVar("Result")

# Earlier ones can corrupt a database on a WAL reset: https://sqlite.org/wal.html#walresetbug
_SQLITE_VERSION_MIN: Final = (3, 51, 3)

# The WAL is copied back once it holds 16 MiB: seldom enough not to be felt, soon enough to start fast.
_WAL_PAGES_MAX: Final = 4096
# What deletes rows writes many different pages: copied back in parts, they are not felt either.
_WAL_PAGES_MAX_OF_DELETIONS: Final = 512
_CACHE_KIB: Final = 32_768

_PRAGMAS: Final = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA cache_size = -{_CACHE_KIB};
    PRAGMA cache_spill = OFF;
    PRAGMA temp_store = MEMORY;
"""

_APPLIED: Final = """
    CREATE TABLE IF NOT EXISTS migrations (
        version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL
    ) STRICT;
    SELECT version, checksum FROM migrations ORDER BY version;
"""

_STATE: Final = """
    SELECT epoch, cleared_seq, max(cleared_seq, spent_seq, coalesce(seq, 0)), coalesce(latest_ms, 0)
    FROM ledger LEFT JOIN (SELECT seq, latest_ms FROM transactions ORDER BY seq DESC LIMIT 1)
"""

_INSERT: Final = """
    INSERT INTO transactions
        (seq, id, epoch, amount_units, currency, timestamp_ms, latest_ms, user_id,
         transaction_type, product, status, metadata, terms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_REMEMBER: Final = """
    INSERT INTO idempotency (digest, fingerprint, packed, created_ms) VALUES (?, ?, ?, ?)
"""

_FIND: Final = """
    SELECT digest, fingerprint, packed, created_ms FROM idempotency
    WHERE digest IN (SELECT unhex(value) FROM json_each(?))
"""

_EXPIRE: Final = """
    DELETE FROM idempotency WHERE seq IN
        (SELECT seq FROM idempotency WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2)
"""

# A sum of amounts may pass 64 bits, where SQLite's sum() fails; the sums of their halves do not.
_TALLY: Final = """
    SELECT currency, timestamp_ms / ?1 * ?1 AS slot_ms, count(*),
           sum(amount_units >> 32), sum(amount_units & 0xffffffff),
           min(amount_units), max(amount_units)
    FROM transactions
    WHERE timestamp_ms BETWEEN ?2 AND ?3 AND epoch = ?4 AND seq > coalesce(
        (SELECT seq FROM transactions WHERE latest_ms < ?2 ORDER BY seq DESC LIMIT 1), 0
    )
    GROUP BY slot_ms, currency
"""

# No number of a row is used again, though all of them may be trimmed.
_TRIM: Final = """
    UPDATE ledger SET spent_seq = max(spent_seq, coalesce((SELECT max(seq) FROM transactions), 0));
    DELETE FROM transactions WHERE seq IN (
        SELECT seq FROM (
            SELECT seq, id FROM transactions
            WHERE seq > (SELECT cleared_seq FROM ledger) ORDER BY seq LIMIT ?2
        ) WHERE id < ?1
    )
"""

_FIRST_RECENT: Final = """
    SELECT max(cleared_seq, coalesce(
        (SELECT seq FROM transactions WHERE latest_ms < ? ORDER BY seq DESC LIMIT 1), 0
    )) FROM ledger
"""

# One text for all rows: each row's own step would hand the interpreter over.
_RECENT: Final = """
    SELECT json_group_array(json_object(
        'amount_units', amount_units, 'timestamp_ms', timestamp_ms,
        'currency', currency, 'user_id', user_id
    ))
    FROM transactions
    WHERE seq > ?1 AND seq <= ?2 AND timestamp_ms BETWEEN ?3 AND ?4 AND epoch = ?5
        AND user_id IS NOT NULL
"""
_decode_recent: Final = msgspec.json.Decoder(list[Transaction]).decode

# SQLite writes nothing where a value stays what it was.
_PROBE: Final = "UPDATE ledger SET probes = probes + 1"

_PURGE: Final = """
    DELETE FROM transactions WHERE seq IN
        (SELECT seq FROM transactions WHERE seq <= (SELECT cleared_seq FROM ledger) ORDER BY seq LIMIT ?)
"""


_DetailColumns = tuple[str | None, ...]
_PLAIN: Final = (None,) * 5
# Words are looked for in the metadata of all that has gathered, for some 10 us each, or some
# milliseconds where it is as long and as odd as it may be: the event loop turns in between.
_TURN_SECONDS: Final = 0.002


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
        details = await _details(rows)

        def insert() -> None:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_INSERT, self._columns(rows, details))
            if records:
                self._connection.executemany(_REMEMBER, map(_record_columns, records))

        self._guard(insert)
        await self._worker.run(self._commit)
        self._last_seq += len(rows)
        self._feed.note(self._tip)
        return self._epoch

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Record]:
        """Look them all up by one statement: each one's own would hand the interpreter over."""
        wanted = msgspec.json.encode([digest.hex() for digest in digests]).decode()

        def find() -> dict[bytes, Record]:
            found = self._connection.execute(_FIND, (wanted,))
            return {
                digest: Record(Key(digest, fingerprint), packed, created_ms)
                for digest, fingerprint, packed, created_ms in found
            }

        return await self._worker.run(lambda: self._guard(find))

    async def expire(self, before_ms: int, records_max: int) -> bool:
        """Delete some of the oldest records."""
        return await self._write(_EXPIRE, (before_ms, records_max)) == records_max

    async def clear(self) -> int:
        """Raise the deletion epoch: constant time, whatever the number of rows."""
        await self._write("UPDATE ledger SET epoch = epoch + 1, cleared_seq = ?", (self._last_seq,))
        self._epoch += 1
        self._cleared_seq = self._last_seq
        self._feed.note(self._tip)
        return self._epoch

    async def epoch(self) -> int:
        """Was read when the database was opened, and is raised here alone."""
        return self._epoch

    async def purge(self, rows_max: int) -> bool:
        """Delete some of the rows of earlier epochs; whether there are more."""
        return await self._write(_PURGE, (rows_max,)) == rows_max

    async def trim(self, before_ms: int, rows_max: int) -> bool:
        """Delete some of the oldest rows; one that a clock ahead has dated keeps those behind it."""
        trimmed = await self._write(_TRIM, ((before_ms << TIME_SHIFT).to_bytes(16), rows_max))
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
        await self._write(_PROBE)

    async def tally(self, from_ms: int, to_ms: int, resolution_ms: int) -> Sequence[Tally]:
        """Sum up the rows of a span of time, in the database."""

        def tally() -> Sequence[Tally]:
            found = self._connection.execute(_TALLY, (resolution_ms, from_ms, to_ms, self._epoch))
            return [
                Tally(currency, slot_ms, Summary(count, (high << 32) + low, lowest, highest))
                for currency, slot_ms, count, high, low, lowest, highest in found
            ]

        return await self._worker.run(lambda: self._guard(tally))

    async def recent(self, from_ms: int, to_ms: int, rows_max: int, walk: Walk | None = None) -> Recent:
        """Read the next rows, all by one statement."""

        def begin() -> int:
            ((after,),) = self._connection.execute(_FIRST_RECENT, (from_ms,))
            return cast(int, after)

        def read() -> str:
            ((found,),) = self._connection.execute(_RECENT, (after, end, from_ms, to_ms, self._epoch))
            return cast(str, found)

        if walk is None:
            first = await self._worker.run(lambda: self._guard(begin))
            walk = Walk(first, max(first, self._last_seq))
        after, until = walk
        end = min(after + rows_max, until)
        transactions = _decode_recent(await self._worker.run(lambda: self._guard(read)))
        return Recent(transactions, None if end == until else Walk(end, until))

    async def close(self) -> None:
        """Copy the WAL back and close, so that the next start has nothing to recover."""
        await self._feed.close()
        try:
            await self._worker.run(self._close)
        finally:
            self._worker.stop()

    @property
    def _tip(self) -> Tip:
        return Tip(self._epoch, self._cleared_seq, self._last_seq, self._trims)

    def _columns(
        self, rows: Sequence[Row], details: Mapping[int, _DetailColumns]
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
                *(_PLAIN if fact.details is None else details[row.id]),
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
        version = tuple(map(int, apsw.sqlite_lib_version().split(".")))
        if version < _SQLITE_VERSION_MIN:
            raise StoreUnusable(f"SQLite {apsw.sqlite_lib_version()} has a known WAL corruption bug")
        try:
            make_directory(self._path.parent)
            self._lock_file = lock(self._path.with_name(self._path.name + "-lock"))
            self._connection = apsw.Connection(str(self._path))
            # Stepped to the end: each statement only runs when the one before it has been read out.
            self._connection.execute(_PRAGMAS).fetchall()
            self._connection.set_wal_hook(self._note_wal_pages)
            self._migrate()
            state = self._connection.execute(_STATE).fetchall()
            if len(state) != 1:
                raise StoreUnusable(f"cannot use {self._path}: its ledger table is damaged")
            self._epoch, self._cleared_seq, self._last_seq, self._latest_ms = (
                cast(int, value) for value in state[0]
            )
            # A first write shows that there is room to write, and makes the WAL; SQLite overlooks
            # an error when it syncs the directory that the WAL is then an entry of.
            self._connection.execute(_PROBE)
            self._secret = self._drawn_secret()
            sync_directory(self._path.parent)
        except (OSError, apsw.Error, migrations.MigrationError) as error:
            raise StoreUnusable(f"cannot use {self._path}: {error}") from error

    def _migrate(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            applied = {
                cast(int, version): str(checksum)
                for version, checksum in self._connection.execute(_APPLIED).fetchall()
            }
            for migration in migrations.pending(migrations.load("sqlite"), applied):
                self._connection.execute(migration.sql)
                self._connection.execute(
                    "INSERT INTO migrations VALUES (?, ?, ?)",
                    (migration.version, migration.name, migration.checksum),
                )
                self.applied.append(migration.name)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _drawn_secret(self) -> bytes:
        drawn = secrets.token_bytes(SECRET_BYTES)
        self._connection.execute(
            "INSERT INTO secret SELECT ? WHERE NOT EXISTS (SELECT * FROM secret)", (drawn,)
        ).fetchall()
        return cast(bytes, self._connection.execute("SELECT value FROM secret").fetchall()[0][0])

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


async def _details(rows: Sequence[Row]) -> Mapping[int, _DetailColumns]:
    """The columns of those rows that have details, by their ids."""
    found: dict[int, _DetailColumns] = {}
    turn_ends = monotonic() + _TURN_SECONDS
    for row in rows:
        details = row.transaction.details
        if details is not None:
            found[row.id] = _detail_columns(details)
            if monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = monotonic() + _TURN_SECONDS
    return found


def _detail_columns(details: Details) -> _DetailColumns:
    kind, product = details.transaction_type, details.product
    return (
        None if kind is None else kind.value,
        None if product is None else product.value,
        details.status.value,
        details.metadata.decode(),
        " ".join(terms(details)),
    )


def _record_columns(record: Record) -> tuple[bytes, bytes, bytes, int]:
    return record.key.digest, record.key.fingerprint, record.packed, record.created_ms
