"""A question to the feed: which transactions, and which part of them; and the plain way to answer it."""

from collections.abc import Sequence
from heapq import heappop, heappush, heappushpop
from typing import NamedTuple

import msgspec

from app.core.activity import PLAIN, Product, Status, TransactionType, texts
from app.core.transaction import Row
from app.core.words import words


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which transactions are wanted: those for which everything holds that is asked for."""

    user_id: str | None = None
    transaction_type: TransactionType | None = None
    product: Product | None = None
    status: Status | None = None
    currency: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    """Both ends are included, of times and of amounts."""
    min_units: int | None = None
    max_units: int | None = None
    metadata: dict[str, str] = {}
    """Fields of METADATA_FILTERS and their whole values."""
    words: tuple[str, ...] = ()
    """Each must stand somewhere in the text of the metadata."""


class Place(NamedTuple):
    """Where a transaction stands in the feed, whose order is by time, then by id, newest first."""

    timestamp_ms: int
    id: int


class Portion(NamedTuple):
    """Which part of the answer is wanted: `limit` rows behind a place, or behind `offset` others."""

    limit: int
    before: Place | None = None
    offset: int = 0
    with_total: bool = False


class Page(NamedTuple):
    """A part of the answer, newest first."""

    rows: Sequence[Row]
    has_more: bool
    total: int | None = None
    """How many rows the question finds, where that was asked for."""


def place(row: Row) -> Place:
    """Where a row stands."""
    return Place(row.transaction.timestamp_ms, row.id)


def matches(row: Row, question: Question) -> bool:
    """Whether a row is asked for: the definition, that every index must agree with."""
    fact = row.transaction
    details = fact.details or PLAIN
    if (
        (question.user_id is not None and fact.user_id != question.user_id)
        or (question.currency is not None and fact.currency != question.currency)
        or (question.from_ms is not None and fact.timestamp_ms < question.from_ms)
        or (question.to_ms is not None and fact.timestamp_ms > question.to_ms)
        or (question.min_units is not None and fact.amount_units < question.min_units)
        or (question.max_units is not None and fact.amount_units > question.max_units)
        or (question.transaction_type not in (None, details.transaction_type))
        or (question.product not in (None, details.product))
        or (question.status not in (None, details.status))
    ):
        return False
    if not (question.metadata or question.words):
        return True
    metadata = msgspec.json.decode(details.metadata)
    if any(metadata.get(name) != value for name, value in question.metadata.items()):
        return False
    found = {word for text in texts(metadata) for word in words(text)}
    return found.issuperset(question.words)


class Cut:
    """Cuts the wanted part out of rows that are found one by one, in any order.

    However many they are, no step takes long: they are never sorted all at once.
    """

    def __init__(self, portion: Portion) -> None:
        self._portion = portion
        self._found = 0
        # The newest that the part may be made of: a heap, the oldest on its top.
        self._newest: list[tuple[Place, Row]] = []
        self._newest_max = portion.offset + portion.limit + 1

    def add(self, row: Row) -> None:
        """One more was found."""
        self._found += 1
        before, placed = self._portion.before, (place(row), row)
        if before is not None and placed[0] >= before:
            return
        if len(self._newest) < self._newest_max:
            heappush(self._newest, placed)
        else:
            heappushpop(self._newest, placed)

    def page(self) -> Page:
        """The part, when all have been found; this is the last call."""
        limit = self._portion.limit
        number = min(len(self._newest) - self._portion.offset, limit + 1)
        rows = [heappop(self._newest)[1] for _ in range(number)][::-1]
        return Page(rows[:limit], len(rows) > limit, self._found if self._portion.with_total else None)
