"""Whether a PostgreSQL database holds what it should: every row and every record.

It is read on a connection of its own, in one transaction that only reads, beside whoever uses it. Until
that ends, a deletion waits. Whether the server's indexes fit their tables is for its own `pg_amcheck`.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from app.core.activity import Product, Status, TransactionType
from app.core.idempotency import Key, Record
from app.core.summary import Summary
from app.core.timestamp import TIMESTAMP_MS_MAX, TIMESTAMP_MS_MIN
from app.store import postgres_schema
from app.store.base import StoreUnusable
from app.store.postgres import conninfo_of
from app.store.postgres_figures import tally
from app.store.postgres_hold import value_of
from app.store.postgres_session import EPOCH, line
from app.store.verification import Examined, Named, Recounting, Recounts

_FETCHED_ROWS: Final = 10_000


def _among(words: type[TransactionType] | type[Product] | type[Status]) -> str:
    return ", ".join(f"'{each.value}'" for each in words)


# What is wrong with a row, and how to tell.
_RULES: Final = (
    (
        "an id that is no UUID of version 7",
        "substr(id::text, 15, 1) <> '7' OR substr(id::text, 20, 1) NOT IN ('8', '9', 'a', 'b')",
    ),
    ("an amount out of bounds", "amount_units = -9223372036854775808"),
    ("a currency that is no code of 2 to 12 capitals and digits", "currency !~ '^[A-Z0-9]{2,12}$'"),
    (
        "a timestamp out of bounds",
        f"timestamp_ms NOT BETWEEN {TIMESTAMP_MS_MIN} AND {TIMESTAMP_MS_MAX}",
    ),
    ("a user_id that is empty or too long", "char_length(user_id) NOT BETWEEN 1 AND 128"),
    ("a transaction_type that is none", f"transaction_type NOT IN ({_among(TransactionType)})"),
    ("a product that is none", f"product NOT IN ({_among(Product)})"),
    ("a status that is none", f"status NOT IN ({_among(Status)})"),
    ("metadata that is no JSON object", "jsonb_typeof(metadata) <> 'object'"),
    ("details without what they are found by", "metadata IS NOT NULL AND terms IS NULL"),
    ("a node that does not exist", "node NOT IN (SELECT number FROM nodes)"),
)
_CHECK_ROWS: Final = "SELECT count(*), {} FROM transactions".format(
    ", ".join(
        f"count(*) FILTER (WHERE {rule}), min(id::text) FILTER (WHERE {rule})" for _, rule in _RULES
    )
)
_RECORDS: Final = "SELECT digest, fingerprint, packed, created_ms FROM idempotency"
_MISSING: Final = """
    SELECT count(*) FROM unnest(%s::uuid[]) AS named (id)
    WHERE NOT EXISTS (SELECT 1 FROM transactions WHERE transactions.id = named.id)
"""
_ROWS: Final = "SELECT currency, amount_units FROM transactions WHERE timestamp_ms >= %s"


class PostgresVerification:
    """Looks at the database at a URL. `may_trim`: whether rows are deleted by their age."""

    def __init__(self, url: str, *, may_trim: bool) -> None:
        self._conninfo = conninfo_of(url)
        self._may_trim = may_trim

    async def examine(self) -> Examined:
        """Look at every row and every record. Raises StoreUnusable."""
        async with self._opened() as connection:
            rows, *found = (await (await connection.execute(_CHECK_ROWS.encode())).fetchall())[0]
            findings = [
                f"rows: {count} with {wrong}; the first is {identifier}"
                for (wrong, _), count, identifier in zip(_RULES, found[::2], found[1::2], strict=True)
                if count
            ]
            for table in ("ledger", "secret"):
                lines = await value_of(connection, f"SELECT count(*) FROM {table}")
                if lines != 1:
                    findings.append(f"schema: the table {table} has {lines} rows instead of one")
            named = Named()
            async with connection.cursor("records") as cursor:
                cursor.itersize = _FETCHED_ROWS
                await cursor.execute(_RECORDS)
                async for digest, fingerprint, packed, created_ms in cursor:
                    named.add(Record(Key(digest, fingerprint), packed, created_ms))
            missing = await value_of(connection, _MISSING, ([each.hex() for each in named.ids],))
            deletions = self._may_trim or await value_of(connection, EPOCH)
            of_records, notes = named.words(missing, were_deletions=bool(deletions))
            return Examined(rows, named.records, findings + of_records, notes)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator["PostgresSnapshot"]:
        """This moment. Raises StoreUnusable."""
        async with self._opened() as connection:
            yield PostgresSnapshot(connection, int(await value_of(connection, EPOCH)))

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection that only reads, in a transaction that sees one moment."""
        try:
            async with await AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
                await connection.set_read_only(True)
                await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                await postgres_schema.check(connection)
                async with connection.transaction():
                    yield connection
        except psycopg.Error as error:
            raise StoreUnusable(f"cannot read PostgreSQL: {line(error)}") from None


class PostgresSnapshot:
    """The database at the moment when the connection's transaction began."""

    def __init__(self, connection: AsyncConnection[Any], epoch: int) -> None:
        self._connection = connection
        self.epoch = epoch

    async def recount(self, from_ms: int) -> Recounts:
        """Add up the rows one by one."""
        recounting = Recounting()
        async with self._connection.cursor("rows") as cursor:
            await cursor.execute(_ROWS, (from_ms,))
            while rows := await cursor.fetchmany(_FETCHED_ROWS):
                recounting.add(rows)
        return recounting.recounts()

    async def tally(self, from_ms: int) -> Mapping[str, Summary]:
        """What a start would sum up."""
        summaries: dict[str, Summary] = {}
        tallies = await tally(self._connection, from_ms, TIMESTAMP_MS_MAX, 1, None, None)
        for currency, _, one, _ in tallies.found:
            summaries[currency] = summaries[currency].merge(one) if currency in summaries else one
        return summaries
