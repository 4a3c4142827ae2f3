"""Exact figures of single users, in memory proportional to what lies in the window.

Of each currency every user has a series: times and amounts by turns, sixteen bytes a transaction, in
the order they came. To record one is to append it; a read goes through all of them. A
sweep that visits everyone eight times a window drops what has left it. A user of many transactions has
a Window besides, which takes the same memory and time however many there are; what is appended to the
series from then on is added to it in one go, when a good many have gathered or a read wants them.

What does not fit under the bound is not recorded, and no figure is given that would lack it: that is the
whole law of `since`. Its old edge is that of the window of all users (`resolution_ms`), whether or not a
user has a Window, so that the figures of users add up to those of all.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from math import ceil
from struct import Struct
from typing import Final

from app.core.summary import EMPTY, Figures, Summary
from app.core.transaction import Transaction
from app.core.window import Shape, Window

# A fifth of a millisecond for a read; with a Window, to add as many to it takes some 5 ms.
SERIES_ROWS_MAX: Final = 4096
# A Window takes up to 3 MB. It counts for as many transactions as four such series, so that the bound on
# transactions bounds the number of Windows too; with no room for one a series may grow to that length.
_WINDOW_SERIES: Final = 4

_ENTRY: Final = Struct("qq")
_ENTRY_BYTES: Final = _ENTRY.size
_entries: Final = _ENTRY.iter_unpack
entry: Final = _ENTRY.pack
"""A transaction as it stands in a series: milliseconds and units. What a bytearray takes in one step
takes an array two, each of which costs as much."""


class Missing(Exception):
    """Figures would lack transactions: for so many milliseconds, or until they are read back."""

    def __init__(self, for_ms: int | None) -> None:
        super().__init__(for_ms)
        self.for_ms = for_ms


class _Currency:
    """The users of one currency. Each has a series, and is once in the queue; some have a Window."""

    __slots__ = ("queue", "series", "windows")

    def __init__(self) -> None:
        self.series: dict[str, bytearray] = {}
        self.windows: dict[str, Window] = {}
        self.queue: deque[str] = deque()
        """In which order they are visited."""


class Users:
    """What users have in the window; at most `rows_max` transactions, or none at all where that is 0."""

    def __init__(self, shape: Shape, rows_max: int, *, series_rows_max: int = SERIES_ROWS_MAX) -> None:
        self.rows_max = rows_max
        self.rows = 0
        """How many are recorded; a Window counts for a fixed number."""
        self.series_bytes_max = series_rows_max * _ENTRY_BYTES
        """A series that has come to this length is for `settle`."""
        self.oldest_ms = 0
        """What is older belongs to no series."""
        self.is_loading = False
        self._shape = shape
        self._window_rows = _WINDOW_SERIES * series_rows_max
        self._currencies: dict[str, _Currency] = {}
        self._cleared: list[_Currency] = []
        self._missing_until_ms = -1

    def series(self, currency: str, rows: int) -> Mapping[str, bytearray]:
        """The series of a currency, where so many more rows are sure to fit under the bound.

        Whoever appends adds to `rows`, and calls `settle` for a series that has become too long.
        """
        users = self._currencies.get(currency)
        return {} if users is None or self.rows + rows > self.rows_max else users.series

    def record(self, transactions: Iterable[Transaction]) -> None:
        """Record transactions, one by one."""
        for transaction in transactions:
            self.take(transaction)

    def take(self, fact: Transaction) -> None:
        """Record one transaction, whatever is to be done for it."""
        user_id, currency, timestamp_ms = fact.user_id, fact.currency, fact.timestamp_ms
        if user_id is None or timestamp_ms < self.oldest_ms:
            return
        users = self._currencies.get(currency)
        is_full = self.rows >= self.rows_max
        if is_full and (users is None or user_id not in users.windows):
            self.miss(timestamp_ms)
            return
        if users is None:
            users = self._currencies[currency] = _Currency()
        self.rows += 1
        series = users.series.get(user_id)
        if series is None:
            users.series[user_id] = bytearray(entry(timestamp_ms, fact.amount_units))
            users.queue.append(user_id)
            return
        series += entry(timestamp_ms, fact.amount_units)
        if len(series) >= self.series_bytes_max:
            self.settle(currency, user_id)

    def settle(self, currency: str, user_id: str) -> None:
        """Add a series to its Window; one that has become long may have its first."""
        users = self._currencies[currency]
        series, window = users.series[user_id], users.windows.get(user_id)
        rows = len(series) // _ENTRY_BYTES
        if window is None:
            self._drop(series)
            rows = len(series) // _ENTRY_BYTES
            has_room = self.rows - rows + self._window_rows <= self.rows_max
            if len(series) < self.series_bytes_max or not (has_room or rows >= self._window_rows):
                return
            window = users.windows[user_id] = Window(self._shape)
            self.rows += self._window_rows
        parts: dict[int, list[int]] = {}
        for ms, units in _entries(series):
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
        window.add(parts.values())
        self.rows -= rows
        series.clear()

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
        codes = self._currencies if currency is None else (currency,)
        return Figures.joining((code, self._summary(code, user_id, from_ms)) for code in sorted(codes))

    def clear(self) -> None:
        """Forget everything, at once; a sweep gives back the memory."""
        self._cleared += self._currencies.values()
        self._currencies = {}
        self.rows = 0
        self.is_loading = False
        self._missing_until_ms = -1

    def restart(self, shape: Shape, oldest_ms: int) -> None:
        """Forget everything, and take what is not older than this."""
        self.clear()
        self._shape = shape
        self.oldest_ms = oldest_ms

    def visits_due(self, seconds: float, rounds: int) -> int:
        """How many visits in so many seconds see everyone so many times in a window."""
        everyone = sum(len(users.queue) for users in (*self._currencies.values(), *self._cleared))
        return ceil(everyone * min(1000 * seconds * rounds / self._shape.window_ms, 1))

    def sweep(self, oldest_ms: int, visits: int) -> None:
        """Drop what is older, in some `visits` visits to those who were not visited for longest."""
        self.oldest_ms = oldest_ms
        while self._cleared and visits:
            queue, series = self._cleared[-1].queue, self._cleared[-1].series
            for _ in range(min(visits, len(queue))):
                series.pop(queue.pop(), None)
                visits -= 1
            if not queue:
                self._cleared.pop()
        everyone = sum(len(users.queue) for users in self._currencies.values())
        share = min(visits / everyone, 1) if everyone else 0
        for currency, users in list(self._currencies.items()):
            for _ in range(ceil(len(users.queue) * share)):
                self._visit(currency, users)
            if not users.queue:
                # Its dictionaries would keep the size that they once had.
                del self._currencies[currency]

    def _visit(self, currency: str, users: _Currency) -> None:
        user_id = users.queue.popleft()
        series, window = users.series[user_id], users.windows.get(user_id)
        if window is None:
            self._drop(series)
            is_idle = not series
        else:
            self.settle(currency, user_id)
            is_idle = not window.since(self.oldest_ms).count
        if not is_idle:
            users.queue.append(user_id)
            return
        del users.series[user_id]
        if window is not None:
            del users.windows[user_id]
            self.rows -= self._window_rows

    def _drop(self, series: bytearray) -> None:
        """Drop what is old at the front; what is old behind that goes when that goes."""
        oldest_ms, dropped = self.oldest_ms, 0
        for ms, _ in _entries(series):
            if ms >= oldest_ms:
                break
            dropped += 1
        if dropped:
            del series[: dropped * _ENTRY_BYTES]
            self.rows -= dropped

    def _summary(self, currency: str, user_id: str, from_ms: int) -> Summary:
        users = self._currencies.get(currency)
        series = None if users is None else users.series.get(user_id)
        if users is None or series is None:
            return EMPTY
        window = users.windows.get(user_id)
        if window is not None:
            self.settle(currency, user_id)
            return window.since(from_ms)
        amounts = [units for ms, units in _entries(series) if ms >= from_ms]
        return Summary(len(amounts), sum(amounts), min(amounts), max(amounts)) if amounts else EMPTY
