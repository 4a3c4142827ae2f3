"""Whether a database file holds what it should: every row, every record, and the feed's index.

It is read in one transaction of a read-only connection, as a backup reads it: nothing is written, and
meanwhile the WAL grows by what the service writes.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import apsw

from app.core.activity import Product, Status, TransactionType
from app.core.idempotency import Key, Record
from app.core.summary import Summary
from app.core.timestamp import TIMESTAMP_MS_MAX, TIMESTAMP_MS_MIN
from app.store import migrations
from app.store import sqlite_statements as sql
from app.store.base import StoreUnusable
from app.store.positions import FIRST_SQL
from app.store.sqlite_feed import index_path
from app.store.verification import Examined, Named, Recounts, differing_terms, recounted

_BUSY_MS: Final = 5000
_DAMAGES_SHOWN_MAX: Final = 10
# Terms that are asked for, beside those that every index has: of users and words some.
_TERMS_ASKED_MAX: Final = 200


_Tallied = tuple[str, int, int, int, int, int, int]


def _among(words: type[TransactionType] | type[Product] | type[Status]) -> str:
    return ", ".join(f"'{each.value}'" for each in words)


# What is wrong with a row, and how to tell.
_RULES: Final = (
    (
        "an id that is no UUID of version 7",
        "length(id) <> 16 OR substr(hex(id), 13, 1) <> '7' "
        "OR substr(hex(id), 17, 1) NOT IN ('8', '9', 'A', 'B')",
    ),
    ("an amount out of bounds", "amount_units = -9223372036854775808"),
    (
        "a currency that is no code of 2 to 12 capitals and digits",
        "currency GLOB '*[^A-Z0-9]*' OR length(currency) NOT BETWEEN 2 AND 12",
    ),
    (
        "a timestamp out of bounds",
        f"timestamp_ms NOT BETWEEN {TIMESTAMP_MS_MIN} AND {TIMESTAMP_MS_MAX}",
    ),
    ("a user_id that is empty or too long", "length(user_id) NOT BETWEEN 1 AND 128"),
    ("a transaction_type that is none", f"transaction_type NOT IN ({_among(TransactionType)})"),
    ("a product that is none", f"product NOT IN ({_among(Product)})"),
    ("a status that is none", f"status NOT IN ({_among(Status)})"),
    (
        "metadata that is no JSON object",
        "CASE WHEN json_valid(metadata) THEN json_type(metadata) <> 'object' "
        "ELSE metadata IS NOT NULL END",
    ),
    ("a deletion epoch that has not come yet", "row.epoch > ledger.epoch"),
    (
        "a deletion epoch that does not fit its number",
        "(row.epoch = ledger.epoch) <> (seq > cleared_seq) AND row.epoch <= ledger.epoch",
    ),
    (
        "a latest_ms that is not the latest up to it, so that a start would overlook rows",
        "latest_ms < timestamp_ms OR latest_ms < latest_before_ms",
    ),
)

_COUNTED: Final = ", ".join(
    f"count(*) FILTER (WHERE {rule}), min(seq) FILTER (WHERE {rule})" for _, rule in _RULES
)
_CHECK_ROWS: Final = f"""
    SELECT {_COUNTED} FROM
        (SELECT *, lag(latest_ms) OVER (ORDER BY seq) AS latest_before_ms FROM transactions) AS row,
        ledger
"""
# What was deleted has left gaps, all of them up to there.
_GAPS: Final = """
    SELECT sum(missing), min(seq) FROM (
        SELECT seq, seq - 1 - max(
            coalesce(lag(seq) OVER (ORDER BY seq), 0), (SELECT max(cleared_seq, spent_seq) FROM ledger)
        ) AS missing
        FROM transactions
    ) WHERE missing > 0
"""
_DETAILS: Final = """
    SELECT seq, transaction_type, product, status, metadata, terms FROM transactions
    WHERE terms IS NOT NULL OR metadata IS NOT NULL
"""
_RECORDS: Final = "SELECT digest, fingerprint, packed, created_ms FROM idempotency"
_ROWS: Final = "SELECT currency, amount_units FROM transactions WHERE epoch = ?1 AND timestamp_ms >= ?2"

# Of the index, as far as it has come: which entries have no row, which rows no entry, and so on.
_INDEX_RULES: Final = (
    (
        "entries have no row",
        """SELECT count(*) FROM entry WHERE seq NOT IN (SELECT seq FROM ledger.transactions)
           AND seq > (SELECT max(cleared_seq, spent_seq) FROM ledger.ledger)""",
    ),
    (
        "rows have no entry",
        """SELECT count(*) FROM ledger.transactions, progress, ledger.ledger
           WHERE transactions.seq <= progress.seq AND transactions.epoch = progress.epoch
           AND transactions.seq > cleared_seq AND transactions.seq NOT IN (SELECT seq FROM entry)""",
    ),
    (
        "entries stand at another time than their rows",
        f"""SELECT count(*) FROM entry JOIN ledger.transactions USING (seq)
            WHERE position < {FIRST_SQL}""",
    ),
    (
        "ids lead to another row than their own",
        """SELECT count(*) FROM place LEFT JOIN entry USING (position)
           LEFT JOIN ledger.transactions USING (seq)
           WHERE entry.seq IS NULL OR transactions.id <> place.id""",
    ),
    (
        "entries have no id",
        "SELECT count(*) FROM entry WHERE position NOT IN (SELECT position FROM place)",
    ),
    (
        "entries cannot be searched for",
        "SELECT count(*) FROM entry WHERE position NOT IN (SELECT id FROM search_docsize)",
    ),
)
_TERMS: Final = """
    SELECT term, count(*) FROM (
        SELECT 'c=' || currency AS term FROM entry JOIN ledger.transactions USING (seq)
        UNION ALL
        SELECT 'u=' || hex(user_id) FROM entry JOIN ledger.transactions USING (seq)
        WHERE user_id IS NOT NULL
        UNION ALL
        SELECT value FROM entry JOIN ledger.transactions USING (seq),
            json_each('["' || replace(coalesce(terms, 's=completed'), ' ', '","') || '"]')
    ) GROUP BY term ORDER BY term GLOB '[cstp]=*' DESC, random() LIMIT ?
"""
_FOUND: Final = """
    SELECT count(*) FROM search JOIN entry ON entry.position = search.rowid
    JOIN ledger.transactions USING (seq) WHERE search MATCH ?
"""


class SQLiteVerification:
    """Looks at the database at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def examine(self) -> Examined:
        """Look at every row and every record. Raises StoreUnusable."""
        with self._opened() as connection:
            return _Examination(connection, self._path).run()

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator["SQLiteSnapshot"]:
        """This moment. Raises StoreUnusable."""
        with self._opened() as connection:
            yield SQLiteSnapshot(connection)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[apsw.Connection]:
        """A connection that only reads, in a transaction that has begun."""
        if not self._path.is_file():
            raise StoreUnusable(f"there is no database at {self._path}")
        try:
            connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
            try:
                connection.set_busy_timeout(_BUSY_MS)
                connection.execute("BEGIN; SELECT epoch FROM ledger").fetchall()
                missing = migrations.load("sqlite")[len(_versions(connection)) :]
                if missing:
                    raise StoreUnusable(
                        f"the database has no {missing[0].name} yet: run `python -m app migrate` first"
                    )
                yield connection
            finally:
                connection.close()
        except apsw.Error as error:
            raise StoreUnusable(f"cannot read {self._path}: {error}") from error


class SQLiteSnapshot:
    """The file at the moment when the connection's transaction began."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.epoch = int(_value(connection, "SELECT epoch FROM ledger"))

    async def recount(self, from_ms: int) -> Recounts:
        """Add up the rows one by one, whatever they say of where to find them."""
        return recounted(self._connection.execute(_ROWS, (self.epoch, from_ms)))

    async def tally(self, from_ms: int) -> Mapping[str, Summary]:
        """What a start would sum up."""
        summaries: dict[str, Summary] = {}
        bounds = (1, from_ms, TIMESTAMP_MS_MAX, self.epoch)
        for row in self._connection.execute(sql.TALLY, bounds):
            currency, _, count, high, low, lowest, highest = cast(_Tallied, row)
            one = Summary(count, (high << 32) + low, lowest, highest)
            summaries[currency] = summaries[currency].merge(one) if currency in summaries else one
        return summaries


class _Examination:
    """One look at a file, and what it comes to."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._findings: list[str] = []
        self._notes: list[str] = []
        self._named = Named()

    def run(self) -> Examined:
        """Look at everything, as far as it can be read."""
        transactions = 0
        for look in (
            self._look_at_pages,
            self._look_at_schema,
            self._look_at_rows,
            self._look_at_terms,
            self._look_at_records,
            self._look_at_index,
        ):
            name = look.__name__.removeprefix("_look_at_")
            try:
                look()
            except apsw.Error as error:
                self._findings.append(f"{name}: cannot be read to the end: {error}")
        with contextlib.suppress(apsw.Error):
            counted = "SELECT count(*) FROM transactions WHERE epoch = (SELECT epoch FROM ledger)"
            transactions = int(_value(self._connection, counted))
        return Examined(transactions, self._named.records, self._findings, self._notes)

    def _look_at_pages(self) -> None:
        for (line,) in self._connection.execute(f"PRAGMA integrity_check({_DAMAGES_SHOWN_MAX})"):
            if line != "ok":
                self._findings += [f"integrity: {each}" for each in str(line).splitlines()]

    def _look_at_schema(self) -> None:
        try:
            migrations.pending(migrations.load("sqlite"), _versions(self._connection))
        except migrations.MigrationError as error:
            self._findings.append(f"schema: {error}")
        for table in ("ledger", "secret"):
            rows = _value(self._connection, f"SELECT count(*) FROM {table}")
            if rows != 1:
                self._findings.append(f"schema: the table {table} has {rows} rows instead of one")

    def _look_at_rows(self) -> None:
        found = self._connection.execute(_CHECK_ROWS).fetchall()[0]
        for (wrong, _), count, seq in zip(_RULES, found[::2], found[1::2], strict=True):
            if count:
                self._findings.append(f"rows: {count} with {wrong}; the first is seq {seq}")
        missing, seq = self._connection.execute(_GAPS).fetchall()[0]
        if missing:
            self._findings.append(f"rows: {missing} are missing; the first gap ends before seq {seq}")
        repeated = _value(self._connection, "SELECT count(*) - count(DISTINCT id) FROM transactions")
        if repeated:
            self._findings.append(f"rows: {repeated} have the id of another one")

    def _look_at_terms(self) -> None:
        differing = [
            seq
            for seq, *details, kept in self._connection.execute(_DETAILS)
            if (right := differing_terms(*details)) is not None and " ".join(right) != kept
        ]
        if differing:
            self._findings.append(
                f"rows: {len(differing)} are found by other words than their metadata has; "
                f"the first is seq {differing[0]}"
            )

    def _look_at_records(self) -> None:
        for digest, fingerprint, packed, created_ms in self._connection.execute(_RECORDS):
            self._named.add(Record(Key(digest, fingerprint), packed, created_ms))
        there = self._connection.execute(
            "SELECT id FROM transactions WHERE epoch = (SELECT epoch FROM ledger)"
        )
        missing = len(self._named.ids.difference(identifier for (identifier,) in there))
        deletions = _value(self._connection, "SELECT epoch + spent_seq FROM ledger")
        findings, notes = self._named.words(missing, were_deletions=bool(deletions))
        self._findings += findings
        self._notes += notes

    def _look_at_index(self) -> None:
        """Look at the feed's index, which is read first, so that the ledger is no older than it."""
        path = index_path(self._path)
        if not path.is_file():
            self._notes.append("index: there is none; a start makes it")
            return
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        index = apsw.Connection(str(path), flags=flags)
        try:
            index.set_busy_timeout(_BUSY_MS)
            for (line,) in index.execute(f"PRAGMA main.integrity_check({_DAMAGES_SHOWN_MAX})"):
                if line != "ok":
                    self._findings.append(f"index: {line}")
            index.execute("ATTACH ? AS ledger", (f"{self._path.absolute().as_uri()}?mode=ro",))
            index.execute("BEGIN; SELECT * FROM progress; SELECT * FROM ledger.ledger").fetchall()
            epoch, ledger_epoch = index.execute(
                "SELECT progress.epoch, ledger.epoch FROM progress, ledger.ledger"
            ).fetchall()[0]
            if epoch != ledger_epoch:
                self._notes.append("index: it has not followed the last deletion yet")
                return
            for wrong, statement in _INDEX_RULES:
                if count := _value(index, statement):
                    self._findings.append(f"index: {count} {wrong}")
            for term, rows in index.execute(_TERMS, (_TERMS_ASKED_MAX,)).fetchall():
                found = index.execute(_FOUND, (f'"{term}"',)).fetchall()[0][0]
                if found != rows:
                    self._findings.append(
                        f"index: {found} of {rows} rows are found by {_kind(str(term))}"
                    )
        finally:
            index.close()


def _kind(term: str) -> str:
    """A term as it may be shown: users and words are their clients' own."""
    return term if term[:2] in ("c=", "s=", "t=", "p=") else "a user" if term[:2] == "u=" else "a word"


def _versions(connection: apsw.Connection) -> dict[int, str]:
    return {
        int(version): str(checksum)
        for version, checksum in connection.execute("SELECT version, checksum FROM migrations")
    }


def _value(connection: apsw.Connection, statement: str) -> Any:  # noqa: ANN401 - what it selects
    return connection.execute(statement).fetchall()[0][0]
