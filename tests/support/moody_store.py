"""A store that refuses or fails as it is told to."""

from collections.abc import Sequence
from enum import Enum, auto

from app.core.idempotency import Record
from app.core.question import Page, Portion, Question
from app.core.transaction import Row
from app.store.base import MemoryStore, StoreFailed, StoreRefused, Tallies


class Mood(Enum):
    """What is the matter with the store."""

    WELL = auto()
    REFUSES = auto()
    FAILS = auto()
    CANNOT_READ = auto()


class MoodyStore(MemoryStore):
    """Keeps rows as its mood has it, once it is open."""

    def __init__(self, mood: Mood) -> None:
        super().__init__()
        self._mood = mood
        self._is_open = False

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        self._decide()
        return await super().append(rows, records)

    async def clear(self) -> int:
        self._decide()
        return await super().clear()

    async def tally(
        self, from_ms: int, to_ms: int, resolution_ms: int, node: str | None = None
    ) -> Tallies:
        if self._mood is Mood.CANNOT_READ and self._is_open:
            raise StoreRefused("locked")
        self._is_open = True
        return await super().tally(from_ms, to_ms, resolution_ms, node)

    async def get(self, identifier: int) -> Row | None:
        self._decide()
        return await super().get(identifier)

    async def page(self, question: Question, portion: Portion) -> Page:
        self._decide()
        return await super().page(question, portion)

    def _decide(self) -> None:
        if self._mood is Mood.REFUSES:
            raise StoreRefused("full")
        if self._mood is Mood.FAILS:
            raise StoreFailed("broken")
