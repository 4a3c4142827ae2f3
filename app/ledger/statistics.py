"""A window for each currency, merged where a question spans them.

A transaction is written once, into its currency's window; the answer lists every currency anyway, so
the overall figures are merged from what was read for it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from app.core.summary import EMPTY, Summary
from app.core.transaction import Row
from app.core.window import Shape, Window
from app.store.base import Tally


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
        # Rows that come together mostly happened together: merged by millisecond they touch the
        # window once.
        merged: dict[str, dict[int, list[int]]] = {}
        for row in rows:
            fact = row.transaction
            timestamp_ms, amount_units = fact.timestamp_ms, fact.amount_units
            parts = merged.get(fact.currency)
            if parts is None:
                parts = merged[fact.currency] = {}
            part = parts.get(timestamp_ms)
            if part is None:
                parts[timestamp_ms] = [timestamp_ms, 1, amount_units, amount_units, amount_units]
            else:
                part[1] += 1
                part[2] += amount_units
                if amount_units < part[3]:
                    part[3] = amount_units
                if amount_units > part[4]:
                    part[4] = amount_units
        for currency, parts in merged.items():
            self._window(currency).add(parts.values())

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
