"""How late the event loop is: a timer that notes when it is called."""

import asyncio
from time import monotonic
from typing import Final

from app.core.histogram import Histogram

_INTERVAL_SECONDS: Final = 0.1


class LoopLag:
    """Counts ten times a second in `lag` how much later than due it is called, in seconds."""

    def __init__(self, lag: Histogram) -> None:
        self._lag = lag
        self._loop = asyncio.get_running_loop()
        self._begin()

    def _begin(self) -> None:
        self._due = monotonic() + _INTERVAL_SECONDS
        self._timer = self._loop.call_later(_INTERVAL_SECONDS, self._note)

    def _note(self) -> None:
        self._lag.observe(max(monotonic() - self._due, 0.0))
        self._begin()

    def close(self) -> None:
        """Count no more."""
        self._timer.cancel()
