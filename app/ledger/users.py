"""Exact figures of single users, in memory proportional to what lies in the window.

Users share buckets, by the hash of their id, of which there are so few that what is appended to stays in
the processor's cache: an entry of 54 bytes each, in the order they came. To record one is to append it,
whoever it is of and however many users there are, and nothing is held for a user who has none. A read
goes through one bucket. A sweep that visits every bucket eight times a window drops what has left it.
Who would make a bucket long, a user with many transactions of a currency, is given a Window, which takes
the same memory and time however many there are.

What does not fit under the bound is not recorded, and no figure is given that would lack it: that is the
whole law of `since`. Its old edge is that of the window of all users (`resolution_ms`), whether or not a
user has a Window, so that the figures of users add up to those of all.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from math import ceil
from struct import Struct
from typing import Final

from app.core.summary import Figures, Summary
from app.core.transaction import Transaction
from app.core.window import Shape, Window

# Buckets are so many that they come to half of this where the bound is reached; with four times as many
# a batch took a third longer. In a longer one is looked for users who are to have a Window.
BUCKET_ROWS_MAX: Final = 8192
# Who has this part of such a bucket in one currency is one of them.
_PART: Final = 8
# A Window takes up to 3 MB. It counts for as many transactions as two such buckets, so that the bound on
# transactions bounds the number of Windows too.
_WINDOW_BUCKETS: Final = 2
# A read of a user with a Window first adds to it what a bucket longer than this has of theirs.
_WAITING_ROWS_MAX: Final = 256

_BUCKET_ROWS: Final = BUCKET_ROWS_MAX // 2
_BUCKETS_MIN: Final = 16
_BUCKETS_MAX: Final = 65_536

# A UUID as it is usually written. An id of more bytes goes by its digest.
NAME_BYTES_MAX: Final = 36
_DIGEST_BYTES: Final = 32

_ENTRY: Final = Struct(f"@qqH{NAME_BYTES_MAX}s")
_ENTRY_BYTES: Final = _ENTRY.size
_TIME: Final = Struct(f"@q{_ENTRY_BYTES - 8}x")
"""The milliseconds of an entry alone: every entry is looked at once more when it is dropped."""
_times: Final = _TIME.iter_unpack
_entries: Final = _ENTRY.iter_unpack
pack_entry: Final = _ENTRY.pack
"""A transaction as it stands in a bucket: milliseconds, units, number of the currency, and the name of
the user, filled up with zeros, which no id has."""


def short_name(name: bytes) -> bytes:
    """The name of a user whose id has more bytes than an entry has room for."""
    # A zero in front, so that it is nobody's id.
    return b"\0" + blake2b(name, digest_size=_DIGEST_BYTES).digest()


def _filled(name: bytes) -> bytes:
    """A name as it is found in entries."""
    return name.ljust(NAME_BYTES_MAX, b"\0")


def _name(user_id: str) -> bytes:
    name = user_id.encode()
    return short_name(name) if len(name) > NAME_BYTES_MAX else name


class Missing(Exception):
    """Figures would lack transactions: for so many milliseconds, or until they are read back."""

    def __init__(self, for_ms: int | None) -> None:
        super().__init__(for_ms)
        self.for_ms = for_ms


class Users:
    """What users have in the window; at most `rows_max` transactions, or none at all where that is 0.

    Whoever appends to buckets themselves, for speed, adds to `rows` and calls `settle` for a bucket
    whose length has come to a multiple of `bucket_bytes_max`.
    """

    def __init__(self, shape: Shape, rows_max: int, *, bucket_rows_max: int = BUCKET_ROWS_MAX) -> None:
        self.rows_max = rows_max
        self.rows = 0
        """How many are recorded; a Window counts for a fixed number."""
        self.oldest_ms = 0
        """What is older is not recorded."""
        self.is_loading = False
        self.bucket_bytes_max = bucket_rows_max * _ENTRY_BYTES
        wanted = min(max(rows_max // _BUCKET_ROWS, _BUCKETS_MIN), _BUCKETS_MAX)
        self.mask = (1 << (wanted - 1).bit_length()) - 1
        """The low bits of a hash that tell a bucket's place."""
        self.entries: list[bytearray]
        self._shape = shape
        self._bucket_rows_max = bucket_rows_max
        self._window_rows = _WINDOW_BUCKETS * bucket_rows_max
        self._currencies: list[str] = []
        self._numbers: dict[str, int] = {}
        self._windows: dict[tuple[bytes, int], Window] = {}
        """By user and the number of the currency."""
        self._missing_until_ms = -1
        self._next = 0
        self._empty()

    def number(self, currency: str) -> int:
        """The number of a currency in entries."""
        number = self._numbers.get(currency)
        if number is None:
            number = self._numbers[currency] = len(self._currencies)
            self._currencies.append(currency)
        return number

    def record(self, transactions: Iterable[Transaction]) -> None:
        """Record transactions, one by one."""
        for transaction in transactions:
            self.take(transaction)

    def take(self, fact: Transaction) -> None:
        """Record one transaction, or note that it is missing."""
        user_id, timestamp_ms = fact.user_id, fact.timestamp_ms
        if user_id is None or timestamp_ms < self.oldest_ms:
            return
        is_full = self.rows >= self.rows_max
        if is_full and not self._windows:
            self.miss(timestamp_ms)
            return
        number, name = self.number(fact.currency), _name(user_id)
        if is_full:
            window = self._windows.get((_filled(name), number))
            if window is None:
                self.miss(timestamp_ms)
            else:
                window.record(timestamp_ms, fact.amount_units)
            return
        place = hash(name) & self.mask
        entries = self.entries[place]
        entries += pack_entry(timestamp_ms, fact.amount_units, number, name)
        self.rows += 1
        if len(entries) % self.bucket_bytes_max == 0:
            self.settle(place)

    def settle(self, place: int) -> None:
        """Move what belongs to Windows from a bucket to them; who has much there may have a first."""
        self._drop(place)
        entries = list(_entries(self.entries[place]))
        counts = Counter((name, number) for _, _, number, name in entries)
        moved: dict[tuple[bytes, int], dict[int, list[int]]] = {}
        for key, rows in counts.items():
            if key in self._windows or self._open(key, rows):
                moved[key] = {}
        if not moved:
            return
        kept = bytearray()
        for ms, units, number, name in entries:
            parts = moved.get((name, number))
            if parts is None:
                kept += pack_entry(ms, units, number, name)
                continue
            part = parts.get(ms)
            if part is None:
                parts[ms] = [ms, 1, units, units, units]
            else:
                part[1] += 1
                part[2] += units
                if units < part[3]:
                    part[3] = units
                if units > part[4]:
                    part[4] = units
        for key, parts in moved.items():
            self._windows[key].add(parts.values())
        self.rows -= len(entries) - len(kept) // _ENTRY_BYTES
        self.entries[place] = kept

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
        name = _name(user_id)
        place, wanted = hash(name) & self.mask, _filled(name)
        found = dict(self._in_windows(wanted, from_ms))
        if found and len(self.entries[place]) > _WAITING_ROWS_MAX * _ENTRY_BYTES:
            self.settle(place)
            found = dict(self._in_windows(wanted, from_ms))
        in_bucket: dict[int, list[int]] = {}
        for ms, units, number, whose in _entries(self.entries[place]):
            if whose == wanted and ms >= from_ms:
                in_bucket.setdefault(number, []).append(units)
        for number, amounts in in_bucket.items():
            code = self._currencies[number]
            summary = Summary(len(amounts), sum(amounts), min(amounts), max(amounts))
            found[code] = found[code].merge(summary) if code in found else summary
        codes = sorted(found) if currency is None else [currency] if currency in found else []
        return Figures.joining((code, found[code]) for code in codes)

    def clear(self) -> None:
        """Forget everything."""
        self._empty()
        self._windows = {}
        self.rows = 0
        self.is_loading = False
        self._missing_until_ms = -1

    def restart(self, shape: Shape, oldest_ms: int) -> None:
        """Forget everything, and take what is not older than this."""
        self.clear()
        self._shape = shape
        self.oldest_ms = oldest_ms

    def visits_due(self, seconds: float, rounds: int) -> int:
        """How many visits in so many seconds see every bucket so many times in a window."""
        return ceil((self.mask + 1) * min(1000 * seconds * rounds / self._shape.window_ms, 1))

    def sweep(self, oldest_ms: int, visits: int) -> None:
        """Drop what is older, in the buckets that were not visited for longest."""
        self.oldest_ms = oldest_ms
        for _ in range(visits):
            if self.entries[self._next]:
                self._drop(self._next)
            self._next = self._next + 1 & self.mask
            if self._next == 0:
                self._drop_windows()

    def _empty(self) -> None:
        self.entries = [bytearray() for _ in range(self.mask + 1)]

    def _drop(self, place: int) -> None:
        """Drop what is old at the front; what is old behind that goes when that goes."""
        dropped, oldest_ms, entries = 0, self.oldest_ms, self.entries[place]
        for (ms,) in _times(entries):
            if ms >= oldest_ms:
                break
            dropped += 1
        if dropped:
            # Not in place: what has been read of it is still being looked at.
            self.entries[place] = entries[dropped * _ENTRY_BYTES :]
            self.rows -= dropped

    def _drop_windows(self) -> None:
        for key, window in list(self._windows.items()):
            if not window.since(self.oldest_ms).count:
                del self._windows[key]
                self.rows -= self._window_rows

    def _open(self, key: tuple[bytes, int], rows: int) -> bool:
        """Give a user a Window who has so much in a bucket that it is due, and where there is room."""
        has_room = self.rows - rows + self._window_rows <= self.rows_max
        if rows * _PART < self._bucket_rows_max or not (has_room or rows >= self._window_rows):
            return False
        self._windows[key] = Window(self._shape)
        self.rows += self._window_rows
        return True

    def _in_windows(self, user_id: bytes, from_ms: int) -> Iterator[tuple[str, Summary]]:
        if self._windows:
            for number, code in enumerate(self._currencies):
                window = self._windows.get((user_id, number))
                if window is not None:
                    yield code, window.since(from_ms)
