"""The Store protocol, its errors, and MemoryStore, the simplest store that keeps it.

One caller at a time: the ledger awaits each call before it makes the next, so a store needs no lock.
Only `get`, `page` and `tally` may be called at any time.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from app.core.idempotency import Record
from app.core.identifier import created_ms
from app.core.question import Cut, Page, Portion, Question, matches
from app.core.summary import Figures, Summary
from app.core.transaction import Row, Transaction

MEMORY_ROWS_MAX: Final = 100_000
MEMORY_RECORDS_MAX: Final = 100_000
_MEMORY_RECORD_BYTES_MAX: Final = 64 * 2**20

# So many are looked at in a turn of the event loop: some 3 ms, where all their text is read.
_TURN_ROWS: Final = 256

SECRET_BYTES: Final = 32


class Tally(NamedTuple):
    """The summary of all rows of one currency and one slot of time, named by its start."""

    currency: str
    slot_ms: int
    summary: Summary
    node: str | None = None
    """Which node kept them, where several share the store: "" is whoever had it alone before."""


class Tallies(NamedTuple):
    """The summaries of a span of time, and the deletion epoch that all of them are of."""

    epoch: int
    found: Sequence[Tally]


class Walk(NamedTuple):
    """The part of a walk that is still to go, by order of arrival."""

    after: int
    until: int


class Recent(NamedTuple):
    """What one step of a walk has found, and where the next one goes on; None where it has ended."""

    transactions: Sequence[Transaction]
    rest: Walk | None


class StoreRefused(Exception):
    """Nothing of the call was kept and the store is intact: trying again later may succeed."""


class KeysTaken(StoreRefused):
    """Nothing was kept, as some of the keys have come to stand for something in the meantime."""


class StoreFailed(Exception):
    """What is on disk is unknown. The store must not be used again before a restart."""


class StoreUnusable(Exception):
    """The store cannot be opened; the message tells an operator why, in one line."""


def identity(secret: bytes) -> bytes:
    """8 bytes that tell a store from every other, and nothing of its secret."""
    return blake2b(secret, digest_size=8, person=b"millrace store").digest()


class Store(Protocol):
    """Append-only rows, oldest first, one deletion of all of them, and records that outlive it.

    Any call may raise StoreRefused or StoreFailed.
    """

    async def open(self) -> None:
        """Make ready. Raises StoreUnusable."""

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        """Keep all rows, in order, and all records, or nothing; durable when this returns.

        Returns the deletion epoch that they were kept in: whatever is of an earlier one is deleted.
        Raises KeysTaken where another process has kept a record of one of the keys.
        """

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Record]:
        """The records of those of these keys that have one, by digest."""

    async def expire(self, before_ms: int, records_max: int) -> bool:
        """Forget some of the records made before that; whether there may be more."""

    async def clear(self) -> int:
        """Forget every row appended so far, durably and at once; `purge` gives back the space.

        Returns the deletion epoch that has begun with it: a number that only grows.
        """

    async def purge(self, rows_max: int) -> bool:
        """Give back the space of some cleared rows; whether there are more."""

    async def probe(self) -> None:
        """Write something durably and change nothing: whether an append would find room."""

    async def tally(
        self, from_ms: int, to_ms: int, resolution_ms: int, node: str | None = None
    ) -> Tallies:
        """Sum up the rows from `from_ms` to `to_ms`, both included, in slots of `resolution_ms`.

        Those of all nodes, or of one where several may share the store.
        """

    async def trim(self, before_ms: int, rows_max: int) -> bool:
        """Delete some of the rows that were kept before that, oldest first; whether there may be more.

        When a row was kept is what its id says.
        """

    async def secret(self) -> bytes:
        """32 random bytes, drawn once for the whole life of what is kept."""

    async def get(self, identifier: int) -> Row | None:
        """The row of that id. May run beside any other call, as `page` may."""

    async def page(self, question: Question, portion: Portion) -> Page:
        """The rows that were asked for, every one among them that was appended before the call."""

    async def recent(self, from_ms: int, to_ms: int, rows_max: int, walk: Walk | None = None) -> Recent:
        """Transactions of users from `from_ms` to `to_ms`, both included, oldest arrivals first.

        One step of a walk, that looks at no more rows than that. Without a walk it begins one, through
        the rows there are now; no clearing comes between its steps.
        """

    async def close(self) -> None:
        """Leave everything in order; the last call."""


class SharedStore(Store, Protocol):
    """A store that several processes keep rows in at the same time, each under a name: nodes.

    Ids and keys are unique among all of them, a deletion is one for all, and what one has kept is found
    by each.
    """

    async def user_figures(self, user_id: str, from_ms: int, currency: str | None = None) -> Figures:
        """The figures of a user's rows of `from_ms` or later, whichever node has kept them.

        May be called at any time, and raises StoreRefused.
        """


class MemoryStore:
    """Keeps the newest rows and records for as long as the process lives."""

    def __init__(self, rows_max: int = MEMORY_ROWS_MAX, records_max: int = MEMORY_RECORDS_MAX) -> None:
        self._rows: deque[Row] = deque(maxlen=rows_max)
        self._records: dict[bytes, Record] = {}
        self._records_max = records_max
        self._record_bytes = 0
        self._epoch = 0
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._walk: list[Row] = []
        """Rows on their way to be read, which must not make way meanwhile."""

    async def open(self) -> None:
        """Nothing to make ready."""

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        """Keep rows and records; beyond the bounds, the oldest make way."""
        self._rows.extend(rows)
        for record in records:
            self._records[record.key.digest] = record
            self._record_bytes += len(record.packed)
        while len(self._records) > self._records_max or self._record_bytes > _MEMORY_RECORD_BYTES_MAX:
            oldest = self._records.pop(next(iter(self._records)))
            self._record_bytes -= len(oldest.packed)
        return self._epoch

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Record]:
        """Look them up."""
        records = self._records
        return {digest: records[digest] for digest in digests if digest in records}

    async def expire(self, before_ms: int, records_max: int) -> bool:
        """Forget none: here their number is their bound."""
        return False

    async def clear(self) -> int:
        """Forget every row."""
        self._rows.clear()
        self._walk = []
        self._epoch += 1
        return self._epoch

    async def purge(self, rows_max: int) -> bool:
        """Nothing is left to give back."""
        return False

    async def probe(self) -> None:
        """There is always room."""

    async def tally(
        self, from_ms: int, to_ms: int, resolution_ms: int, node: str | None = None
    ) -> Tallies:
        """Sum up the rows of a span of time."""
        summaries: dict[tuple[str, int], Summary] = {}
        for row in self._rows:
            transaction = row.transaction
            if from_ms <= transaction.timestamp_ms <= to_ms:
                slot_ms = transaction.timestamp_ms // resolution_ms * resolution_ms
                key = transaction.currency, slot_ms
                one = Summary.of(transaction.amount_units)
                summaries[key] = summaries[key].merge(one) if key in summaries else one
        return Tallies(self._epoch, [Tally(*key, summary) for key, summary in summaries.items()])

    async def trim(self, before_ms: int, rows_max: int) -> bool:
        """Delete the oldest rows."""
        rows = self._rows
        for _ in range(rows_max):
            if not rows or created_ms(rows[0].id) >= before_ms:
                return False
            rows.popleft()
        return True

    async def secret(self) -> bytes:
        """Lives as long as the rows."""
        return self._secret

    async def get(self, identifier: int) -> Row | None:
        """Look at every row."""
        async for row in self._each():
            if row.id == identifier:
                return row
        return None

    async def page(self, question: Question, portion: Portion) -> Page:
        """Look at every row."""
        cut = Cut(portion)
        async for row in self._each():
            if matches(row, question):
                cut.add(row)
        return cut.page()

    async def _each(self) -> AsyncIterator[Row]:
        for number, row in enumerate(list(self._rows)):
            if not number % _TURN_ROWS:
                await asyncio.sleep(0)
            yield row

    async def recent(self, from_ms: int, to_ms: int, rows_max: int, walk: Walk | None = None) -> Recent:
        """Look at the next rows, of those that there were when the walk began."""
        if walk is None:
            self._walk = list(self._rows)
            walk = Walk(0, len(self._walk))
        after, until = walk
        end = min(after + rows_max, until)
        facts = [row.transaction for row in self._walk[after:end]]
        transactions = [
            fact for fact in facts if fact.user_id is not None and from_ms <= fact.timestamp_ms <= to_ms
        ]
        if end < until:
            return Recent(transactions, Walk(end, until))
        self._walk = []
        return Recent(transactions, None)

    async def close(self) -> None:
        """The rows go with the process."""
