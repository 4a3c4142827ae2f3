"""A window for each currency, merged where a question spans them.

A transaction is written once, into its currency's window; the answer lists every currency anyway, so
the overall figures are merged from what was read for it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from app.core.summary import EMPTY, Summary
from app.core.transaction import Row
from app.core.window import Shape, Window
from app.store.base import Tally

_MERGED_ROWS_MIN: Final = 8


class Figures(NamedTuple):
    """The answer to one question: all currencies together, and each that occurs."""

    overall: Summary
    by_currency: dict[str, Summary]


class Statistics:
    """Figures over the newest transactions, as counted so far."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._windows: dict[str, Window] = {}

    def record(self, rows: Sequence[Row]) -> None:
        """Count rows; those that the ring has moved past are in no window any more."""
        if len(rows) < _MERGED_ROWS_MIN:
            for row in rows:
                fact = row.transaction
                self._window(fact.currency).record(fact.timestamp_ms, fact.amount_units)
            return
        # Rows that come together mostly happened together: merged by millisecond, they touch the
        # window once.
        merged: dict[tuple[str, int], list[int]] = {}
        for row in rows:
            fact = row.transaction
            amount_units = fact.amount_units
            key = fact.currency, fact.timestamp_ms
            summary = merged.get(key)
            if summary is None:
                merged[key] = [1, amount_units, amount_units, amount_units]
            else:
                summary[0] += 1
                summary[1] += amount_units
                if amount_units < summary[2]:
                    summary[2] = amount_units
                if amount_units > summary[3]:
                    summary[3] = amount_units
        for (currency, timestamp_ms), summary in merged.items():
            self._window(currency).absorb(timestamp_ms, Summary(*summary))

    def absorb(self, tally: Tally) -> None:
        """Count transactions that were summed up before."""
        self._window(tally.currency).absorb(tally.slot_ms, tally.summary)

    def clear(self) -> None:
        """Count nothing."""
        self._windows.clear()

    def since(self, from_ms: int, currency: str | None = None) -> Figures:
        """The figures over every transaction whose time is `from_ms` or later."""
        if currency is None:
            windows = self._windows
        else:
            window = self._windows.get(currency)
            windows = {} if window is None else {currency: window}
        overall, by_currency = EMPTY, {}
        for code in sorted(windows):
            summary = windows[code].since(from_ms)
            if summary.count:
                by_currency[code] = summary
                overall = overall.merge(summary)
        return Figures(overall, by_currency)

    def _window(self, currency: str) -> Window:
        window = self._windows.get(currency)
        if window is None:
            window = self._windows[currency] = Window(self.shape)
        return window
