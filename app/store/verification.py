"""What is looked at when a store is verified, whatever kind of store it is.

Whoever verifies reads, and nothing else: beside a service, which goes on.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol

import msgspec

from app.core.activity import Details, Product, Status, TransactionType, terms
from app.core.idempotency import Record
from app.core.identifier import parse_identifier
from app.core.summary import EMPTY, Summary

_ID_BYTES: Final = 16
DIGEST_BYTES: Final = 16


class Recount(NamedTuple):
    """Amounts that were added up one by one, and what of their sum is negative."""

    summary: Summary = EMPTY
    negative_units: int = 0


Recounts = Mapping[str, Recount]
"""By currency."""


class Examined(NamedTuple):
    """What was found in a store: `findings` are wrong, `notes` are worth knowing."""

    transactions: int
    records: int
    findings: list[str]
    notes: list[str]


class Snapshot(Protocol):
    """A store at one moment, whatever is written to it meanwhile."""

    epoch: int
    """The deletions there have been."""

    async def recount(self, from_ms: int) -> Recounts:
        """Add up the rows of `from_ms` or later, one by one."""

    async def tally(self, from_ms: int) -> Mapping[str, Summary]:
        """The same as a start sums it up."""


class Verification(Protocol):
    """Looks at a store. Its calls raise StoreUnusable where it cannot be read at all."""

    async def examine(self) -> Examined:
        """Look at every row and every record."""

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """This moment."""


def recounted(rows: Iterable[tuple[str, int]]) -> Recounts:
    """Add up amounts, each with its currency: naively, as everything else is judged by it."""
    recounting = Recounting()
    recounting.add(rows)
    return recounting.recounts()


class Recounting:
    """`recounted` of what comes in parts: a window may have more rows than memory."""

    def __init__(self) -> None:
        self._found: dict[str, list[int]] = {}

    def add(self, rows: Iterable[tuple[str, int]]) -> None:
        """Add up some more."""
        found = self._found
        for currency, units in rows:
            of_one = found.get(currency)
            if of_one is None:
                found[currency] = [1, units, units, units, min(units, 0)]
                continue
            of_one[0] += 1
            of_one[1] += units
            of_one[2] = min(of_one[2], units)
            of_one[3] = max(of_one[3], units)
            of_one[4] += min(units, 0)

    def recounts(self) -> Recounts:
        """What it has come to."""
        return {
            currency: Recount(Summary(*measures), negative)
            for currency, (*measures, negative) in sorted(self._found.items())
        }


def differing_terms(
    kind: str | None, product: str | None, status: str | None, metadata: str | None
) -> list[str] | None:
    """What a row of these details is found by; None where they are no details."""
    try:
        details = Details(
            None if kind is None else TransactionType(kind),
            None if product is None else Product(product),
            Status(status or Status.COMPLETED.value),
            (metadata or "{}").encode(),
        )
        return terms(details)
    except (ValueError, AttributeError):
        return None


class _Answer(msgspec.Struct):
    id: str | None = None
    ids: list[str | None] = []


class Named:
    """The ids of transactions that remembered answers name, and the records that are none."""

    def __init__(self) -> None:
        self.records = 0
        self.damaged = 0
        self.ids: set[bytes] = set()

    def add(self, record: Record) -> None:
        """Look at a record."""
        self.records += 1
        try:
            if len(record.key.digest) != DIGEST_BYTES or len(record.key.fingerprint) != DIGEST_BYTES:
                raise ValueError(record.created_ms)
            self.ids.update(_named(record.answer))
        except Exception:  # Whatever unpacking it comes to.
            self.damaged += 1

    def words(self, missing: int, *, were_deletions: bool) -> tuple[list[str], list[str]]:
        """What is to be said of them: findings and notes."""
        findings, notes = [], []
        if self.damaged:
            findings.append(f"idempotency: {self.damaged} of {self.records} records cannot be read")
        if missing:
            text = f"idempotency: remembered answers name {missing} transactions that are not there"
            if were_deletions:
                notes.append(f"{text}, as after DELETE or RETENTION_DAYS they are not")
            else:
                findings.append(f"{text}, and none was ever deleted")
        return findings, notes


def _named(answer: bytes) -> Iterator[bytes]:
    """The ids in an answer: of an item, its bytes; of a request, what its JSON says."""
    if len(answer) == _ID_BYTES and not answer.startswith(b"{"):
        yield answer
        return
    told = msgspec.json.decode(answer, type=_Answer)
    for text in (told.id, *told.ids):
        if text is not None:
            identifier = parse_identifier(text)
            if identifier is None:
                raise ValueError(text)
            yield identifier.to_bytes(_ID_BYTES)
