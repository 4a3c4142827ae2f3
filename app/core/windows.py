"""A window for each currency, merged where a question spans them."""

from collections.abc import Collection, Mapping

from app.core.summary import Figures
from app.core.window import Part, Shape, Window

Counted = Mapping[str, Collection[Part]]
"""What was counted, by currency, summed up by slot."""


class Windows:
    """Windows of one shape, made where there is something to count."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._windows: dict[str, Window] = {}

    def add(self, counted: Counted) -> None:
        """Count what was summed up before."""
        for currency, parts in counted.items():
            self._window(currency).add(parts)

    def lift(self, counted: Counted) -> dict[str, list[Part]]:
        """Raise slots to what they are said to hold, as Window.lift; what that has added."""
        added = {currency: self._window(currency).lift(parts) for currency, parts in counted.items()}
        return {currency: parts for currency, parts in added.items() if parts}

    def restart(self, shape: Shape) -> None:
        """Count nothing, and from here on in this shape."""
        self.shape = shape
        self._windows.clear()

    def since(self, from_ms: int, currency: str | None = None) -> Figures:
        """The figures over everything whose time is `from_ms` or later."""
        if currency is None:
            windows = self._windows
        else:
            window = self._windows.get(currency)
            windows = {} if window is None else {currency: window}
        return Figures.joining((code, windows[code].since(from_ms)) for code in sorted(windows))

    def at(self, currency: str, timestamp_ms: int) -> Part | None:
        """All that a slot holds; None where that is nothing."""
        window = self._windows.get(currency)
        return None if window is None else window.at(timestamp_ms)

    def parts(self, currency: str) -> Collection[Part]:
        """All there is of one currency, by slot."""
        window = self._windows.get(currency)
        return () if window is None else window.parts()

    def is_past(self, others: "Windows") -> bool:
        """Whether these have moved past all that those hold, and that was added to these as well."""
        return all(
            code not in self._windows or self._windows[code].is_past(window)
            for code, window in others._windows.items()
        )

    @property
    def allocated_bytes(self) -> int:
        """What they take of memory where many amounts are in them, to some percent."""
        return sum(window.allocated_bytes for window in self._windows.values())

    @property
    def currencies(self) -> list[str]:
        """Those that anything was counted of."""
        return list(self._windows)

    def _window(self, currency: str) -> Window:
        window = self._windows.get(currency)
        if window is None:
            window = self._windows[currency] = Window(self.shape)
        return window
