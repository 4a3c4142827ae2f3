"""Exact figures of single users, in memory proportional to what lies in the window.

All transactions stand in one journal, in the order they came, in parts of some thousands: an entry of
56 bytes each, and a tag, a character that tells most users from each other. To record one is to append
it, whoever it is of and however many users there are, and nothing is held for a user who has none. A
read looks for the user's tag, by one search through the tags of each part. A part goes when all in it is
old: nothing is looked at one by one. A user who has much in the journal is given Windows, one for each
currency, so that a read takes the same time however much it is; they repeat what the journal has.

What does not fit under the bound is not recorded, and no figure is given that would lack it: that is the
whole law of `since`. Its old edge is that of the window of all users (`resolution_ms`), whether or not a
user has Windows, so that the figures of users add up to those of all.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from app.core.summary import Figures, Summary
from app.core.transaction import Transaction
from app.core.window import SLOTS_PER_SPAN, Part, Shape, Window

# A part is closed with so many, and after an eighth of a window: it goes that much later than its first.
PART_ROWS: Final = 4096
_PARTS_PER_WINDOW: Final = 8
# Who has so much in the journal when asked for is given Windows.
MANY_ROWS: Final = 4096
# So is who comes up so often among every 64th entry of a part, as who has an eighth of it mostly does.
_SAMPLED: Final = 64
_SAMPLES_MIN: Final = 4
# So many are kept in mind as those who cannot have Windows.
_UNFIT_MAX: Final = 1000

# A UUID as it is usually written. An id of more bytes goes by its digest.
NAME_BYTES_MAX: Final = 36
_DIGEST_BYTES: Final = 32

# Below the first half of a surrogate pair, which is no character.
TAG_MASK: Final = 0x7FFF
_TAG_CODEC: Final = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"

# A transaction as it stands in the journal: milliseconds, units, number of the currency, tag and name of
# the user, filled up with zeros, which no id has.
_ENTRY: Final = Struct(f"@qqHH{NAME_BYTES_MAX}s")
_ENTRY_BYTES: Final = _ENTRY.size
_TAG_AT: Final = 18
pack_entry: Final = _ENTRY.pack
_times: Final = Struct(f"@q{_ENTRY_BYTES - 8}x").iter_unpack

# Nothing is recorded that is older than this.
_NEVER_MS: Final = sys.maxsize


def short_name(name: bytes) -> bytes:
    """The name of a user whose id has more bytes than an entry has room for."""
    # A zero in front, so that it is nobody's id.
    return b"\0" + blake2b(name, digest_size=_DIGEST_BYTES).digest()


class Missing(Exception):
    """Figures would lack transactions: for so many milliseconds, or until they are read back."""

    def __init__(self, for_ms: int | None) -> None:
        super().__init__(for_ms)
        self.for_ms = for_ms


class _Part(NamedTuple):
    """A part of the journal."""

    newest_ms: int
    tags: str
    entries: bytes | bytearray

    def of(self, user: "_User") -> Iterator[tuple[int, int, int]]:
        """Milliseconds, units and the currency's number of what it has of a user."""
        find, entries, tag, wanted = self.tags.find, self.entries, chr(user.tag), user.name
        read = _ENTRY.unpack_from
        place = find(tag)
        while place >= 0:
            ms, units, number, _, name = read(entries, place * _ENTRY_BYTES)
            if name == wanted:
                yield ms, units, number
            place = find(tag, place + 1)


class _User(NamedTuple):
    """A user as the journal is searched for them."""

    tag: int
    name: bytes

    @classmethod
    def of(cls, user_id: str) -> "_User":
        """The tag and the name of a user."""
        name = user_id.encode()
        if len(name) > NAME_BYTES_MAX:
            name = short_name(name)
        return cls(hash(user_id) & TAG_MASK, name.ljust(NAME_BYTES_MAX, b"\0"))


class Users:
    """What users have in the window; at most `rows_max` transactions, or none at all where that is 0."""

    def __init__(
        self, shape: Shape, rows_max: int, *, part_rows: int = PART_ROWS, many_rows: int = MANY_ROWS
    ) -> None:
        self.rows_max = rows_max
        self.rows = 0
        """How many are recorded."""
        self.is_loading = False
        self._shape = shape
        self._part_rows = part_rows
        self._many_rows = many_rows
        self.oldest_ms = 0 if rows_max else _NEVER_MS
        """What is older is not recorded."""
        self._currencies: list[str] = []
        self._numbers: dict[str, int] = {}
        self._missing_until_ms = -1
        self._newest_ms = 0
        self._close_due_ms = 0
        self.clear()

    def record(self, transactions: Sequence[Transaction]) -> None:
        """Record transactions, or note those that are missing."""
        facts = [(_User.of(fact.user_id), fact) for fact in transactions if fact.user_id is not None]
        facts = [(user, fact) for user, fact in facts if fact.timestamp_ms >= self.oldest_ms]
        if facts:
            entries = [
                pack_entry(
                    fact.timestamp_ms, fact.amount_units, self.number(fact.currency), user.tag, user.name
                )
                for user, fact in facts
            ]
            newest_ms = max(fact.timestamp_ms for _, fact in facts)
            self.append(entries, newest_ms)

    def append(self, entries: list[bytes], newest_ms: int) -> None:
        """Record entries that are made, none later than that, or note those that are missing."""
        room = self.rows_max - self.rows
        if len(entries) > room:
            self.miss(max(ms for (ms,) in _times(b"".join(entries[room:]))))
            del entries[room:]
        if not entries:
            return
        if not self._entries:
            self._close_due_ms = self.oldest_ms + self._shape.window_ms // _PARTS_PER_WINDOW
        self._entries += b"".join(entries)
        self._newest_ms = max(self._newest_ms, newest_ms)
        self.rows += len(entries)
        if len(self._entries) >= self._part_rows * _ENTRY_BYTES:
            self._close_part()

    def number(self, currency: str) -> int:
        """The number of a currency in entries."""
        number = self._numbers.get(currency)
        if number is None:
            number = self._numbers[currency] = len(self._currencies)
            self._currencies.append(currency)
        return number

    def miss(self, until_ms: int) -> None:
        """Note that transactions up to this time are not recorded."""
        self._missing_until_ms = max(self._missing_until_ms, until_ms)

    def since(self, user_id: str, from_ms: int, currency: str | None = None) -> Figures:
        """The figures of one user since `from_ms`. Raises Missing."""
        from_ms -= from_ms % self._shape.resolution_ms
        if self.is_loading:
            raise Missing(None)
        if from_ms <= self._missing_until_ms:
            raise Missing(self._missing_until_ms - from_ms + 1)
        user = _User.of(user_id)
        windows = self._windows.get(user)
        rows = 0
        amounts: dict[int, list[int]] = {}
        for part in self._open_parts if windows is not None else (*self._parts, *self._open_parts):
            if part.newest_ms >= from_ms:
                for ms, units, number in part.of(user):
                    rows += 1
                    if ms >= from_ms:
                        amounts.setdefault(number, []).append(units)
        found = {
            self._currencies[number]: Summary(len(units), sum(units), min(units), max(units))
            for number, units in amounts.items()
        }
        if windows is not None:
            for number, window in windows.items():
                code, summary = self._currencies[number], window.since(from_ms)
                found[code] = found[code].merge(summary) if code in found else summary
        elif rows >= self._many_rows:
            self._give_windows(user, rows, len(amounts))
        codes = sorted(found) if currency is None else [currency] if currency in found else []
        return Figures.joining((code, found[code]) for code in codes)

    def clear(self) -> None:
        """Forget everything."""
        self.rows = 0
        self.is_loading = False
        self._missing_until_ms = -1
        self._parts: list[_Part] = []
        self._windows: dict[_User, dict[int, Window]] = {}
        """By user and the number of the currency: all there is in the closed parts."""
        self._unfit: set[_User] = set()
        """Who has more currencies than there is room for Windows."""
        self._begin_part()

    def restart(self, shape: Shape, oldest_ms: int) -> None:
        """Forget everything, and take what is not older than this."""
        self._shape = shape
        self.oldest_ms = oldest_ms if self.rows_max else _NEVER_MS
        self.clear()

    def sweep(self, oldest_ms: int) -> None:
        """Drop what is older. To be called now and then."""
        self.oldest_ms = oldest_ms if self.rows_max else _NEVER_MS
        if self._entries and (oldest_ms >= self._close_due_ms or self._newest_ms < oldest_ms):
            self._close_part()
        kept = [part for part in self._parts if part.newest_ms >= oldest_ms]
        if len(kept) < len(self._parts):
            self._parts = kept
            self.rows = sum(len(part.tags) for part in (*kept, *self._open_parts))
            for user in [user for user in self._windows if self._weight(user) < self._many_rows // 2]:
                del self._windows[user]

    def _begin_part(self) -> None:
        self._entries = bytearray()
        self._newest_ms = -sys.maxsize
        self._close_due_ms = 0

    @property
    def _open_parts(self) -> Sequence[_Part]:
        """What is not closed yet, as a part."""
        entries = self._entries
        if not entries:
            return ()
        tags = bytearray(2 * len(entries) // _ENTRY_BYTES)
        tags[::2] = entries[_TAG_AT::_ENTRY_BYTES]
        tags[1::2] = entries[_TAG_AT + 1 :: _ENTRY_BYTES]
        return (_Part(self._newest_ms, tags.decode(_TAG_CODEC), entries),)

    def _close_part(self) -> None:
        (part,) = self._open_parts
        part = part._replace(entries=bytes(part.entries))
        self._parts.append(part)
        self._begin_part()
        for user, windows in list(self._windows.items()):
            self._add(part, user, windows)
            self._check_room(user)
        for tag, samples in Counter(part.tags[::_SAMPLED]).items():
            if samples >= _SAMPLES_MIN:
                *_, name = _ENTRY.unpack_from(part.entries, part.tags.index(tag) * _ENTRY_BYTES)
                user = _User(ord(tag), name)
                if user not in self._windows:
                    currencies = {number for _, _, number in part.of(user)}
                    self._give_windows(user, samples * _SAMPLED * len(self._parts), len(currencies))

    def _give_windows(self, user: _User, rows: int, currencies: int) -> None:
        """Give a user of some so many rows Windows, where there is room or who has less makes way."""
        if user in self._unfit:
            return
        while self._windows and self._windows_held + currencies > self._windows_max:
            least = min(self._windows, key=self._weight)
            if 2 * self._weight(least) > rows:
                return
            del self._windows[least]
        windows = self._windows[user] = {}
        for part in self._parts:
            self._add(part, user, windows)
        self._check_room(user)

    def _check_room(self, user: _User) -> None:
        """Take a user's Windows away who has come to have too many of them."""
        if self._windows_held > self._windows_max:
            del self._windows[user]
            if len(self._unfit) >= _UNFIT_MAX:
                self._unfit.clear()
            self._unfit.add(user)

    @property
    def _windows_held(self) -> int:
        return sum(max(len(windows), 1) for windows in self._windows.values())

    @property
    def _windows_max(self) -> int:
        """How many there may be: a slot of a Window takes as much memory as an entry."""
        return max(self.rows_max // (self._shape.spans * SLOTS_PER_SPAN), 1)

    def _weight(self, user: _User) -> int:
        return sum(window.since(self.oldest_ms).count for window in self._windows[user].values())

    def _add(self, part: _Part, user: _User, windows: dict[int, Window]) -> None:
        """Add to Windows of a user what a part has of theirs."""
        amounts: dict[int, list[Part]] = {}
        for ms, units, number in part.of(user):
            amounts.setdefault(number, []).append((ms, 1, units, units, units))
        for number, parts in amounts.items():
            if number not in windows:
                windows[number] = Window(self._shape)
            windows[number].add(parts)
