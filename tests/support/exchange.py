"""An exchange in memory that does what a bad network and a restarted server do."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from app.core.bulletin import Bulletin, Unreadable
from app.exchange.base import ExchangeFailed, Heard

_CARE_SECONDS = 1.0
_TIMEOUT_SECONDS = 0.3


class Faults(msgspec.Struct):
    """How likely each fault is, for one swap or message."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    """What was told was told, and the sender believes that it was not."""
    slow: float = 0.0
    repeated: float = 0.0
    """Some of what was heard is heard again."""
    held: float = 0.0
    """What a node told last comes with the next swap, behind what others have told later."""
    is_shuffled: bool = False
    """What a node told comes in any order, which a stream never does."""


class Entry(NamedTuple):
    """What was told."""

    number: int
    message: bytes


class Stream:
    """The server: every message that it still has, and all there ever were."""

    def __init__(self, messages_max: int = 1000) -> None:
        self.entries: list[Entry] = []
        self.all_entries: list[Entry] = []
        self.messages_max = messages_max
        self.starts = 1

    def append(self, message: bytes) -> Entry:
        entry = Entry(len(self.all_entries) + 1, message)
        self.entries.append(entry)
        self.all_entries.append(entry)
        return entry

    def forget(self, last: int | None = None) -> None:
        """As a server that was restarted empty, or with what it had saved before the last few."""
        self.starts += 1
        if last is None:
            self.entries.clear()
        else:
            del self.entries[max(len(self.entries) - last, 0) :]

    def evict(self) -> None:
        """As a server that had no room for it: no connection breaks."""
        self.entries.clear()

    def has(self, number: int) -> bool:
        place = bisect_left(self.entries, number, key=lambda entry: entry.number)
        return place < len(self.entries) and self.entries[place].number == number


class MemoryExchange:
    """One node's connection. Deterministic: `choose` draws all there is to draw."""

    def __init__(
        self, stream: Stream, choose: random.Random, faults: Faults, wall_ms: Callable[[], float]
    ) -> None:
        """`wall_ms` is the server's clock."""
        self._stream = stream
        self._choose = choose
        self.faults = faults
        self._wall_ms = wall_ms
        self._position = 0
        self._witness: int | None = None
        self._care_due = 0.0
        self._starts = stream.starts
        self.is_cut_off = False
        self.is_in_use = False
        self._given: list[bytes] = []
        self.introduced: set[tuple[str, bytes]] = set()
        """Node and store of those who were heard, and have not taken leave since."""

    async def swap(self, message: bytes) -> Heard:
        assert not self.is_in_use, "the exchange is one caller's at a time"
        self.is_in_use = True
        self._introduce()
        try:
            heard = await self._swap(message)
        except BaseException:
            self._care_due = 0.0
            raise
        finally:
            self.is_in_use = False
        self._given = list(heard.messages)
        return heard

    async def _swap(self, message: bytes) -> Heard:
        choose, faults, stream = self._choose, self.faults, self._stream
        now = asyncio.get_running_loop().time()
        await self._travel()
        self._be_connected()
        if self.is_cut_off or choose.random() < faults.lost_request:
            await asyncio.sleep(_TIMEOUT_SECONDS)
            raise ExchangeFailed("request")
        has_care = now >= self._care_due
        has_lost = has_care and self._witness is not None and not stream.has(self._witness)
        own = stream.append(message)
        exchange_ms = self._wall_ms()
        position = self._position
        has_lost |= position > 0 and not stream.has(position)
        read = [entry for entry in stream.entries if entry.number > position][: stream.messages_max]
        await self._travel()
        self._be_connected()
        if self.is_cut_off or choose.random() < faults.lost_answer:
            await asyncio.sleep(_TIMEOUT_SECONDS)
            raise ExchangeFailed("answer")
        if has_care:
            self._care_due = now + _CARE_SECONDS
        self._witness = own.number
        if has_lost:
            self.rewind()
        has_more = has_lost or len(read) == stream.messages_max
        if self._position == position and not has_lost:
            available = len(read)
            read = self._muddle(read)
            has_more |= len(read) < available
        return Heard([entry.message for entry in read], exchange_ms, has_more, has_lost)

    def _introduce(self) -> None:
        """What was handed over the last time was taken in."""
        for message in self._given:
            sender, is_last = _sender(message)
            if is_last:
                self.introduced.discard(sender)
            else:
                self.introduced.add(sender)

    def _be_connected(self) -> None:
        """A connection does not outlive the server's restart."""
        if self._starts != self._stream.starts:
            self._starts = self._stream.starts
            raise ExchangeFailed("restarted")

    def _muddle(self, read: list[Entry]) -> list[Entry]:
        """Hold some of it back, and repeat some; where the reading goes on is moved accordingly."""
        choose, faults = self._choose, self.faults
        if read and choose.random() < faults.held:
            read = read[: choose.randrange(len(read) + 1)]
        if read:
            self._position = read[-1].number
            if choose.random() < faults.repeated:
                # Heard once more from there, in order, so that the last of everything comes last.
                self._position = max(self._position - choose.randrange(1, 20), 0)
        if faults.is_shuffled:
            return choose.sample(read, len(read))
        return _interleaved(read, choose)

    async def _travel(self) -> None:
        is_slow = self._choose.random() < self.faults.slow
        await asyncio.sleep(
            self._choose.uniform(0.05, 0.2) if is_slow else self._choose.uniform(0, 0.002)
        )

    def rewind(self) -> None:
        self._position = 0

    async def close(self) -> None:
        pass


def _interleaved(read: Sequence[Entry], choose: random.Random) -> list[Entry]:
    """In another order, but for what each node has told, which keeps its own."""
    by_sender: dict[tuple[str, bytes], list[Entry]] = {}
    for entry in read:
        by_sender.setdefault(_sender(entry.message)[0], []).append(entry)
    turns = [sender for sender, entries in by_sender.items() for _ in entries]
    choose.shuffle(turns)
    waiting = {sender: iter(entries) for sender, entries in by_sender.items()}
    return [next(waiting[sender]) for sender in turns]


def _sender(message: bytes) -> tuple[tuple[str, bytes], bool]:
    """Node and store, and whether it takes leave."""
    try:
        bulletin = Bulletin.decode(message)
    except Unreadable:
        return ("", b""), False
    return (bulletin.node, bulletin.store), bulletin.is_last
