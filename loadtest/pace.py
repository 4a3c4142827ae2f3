"""When each request of a run is due.

The schedule is open: it is fixed at the start and does not wait for answers, so a slow service
falls visibly behind it instead of slowing it down.
"""

import asyncio
import math
import time


class Pace:
    """When each request is due: at a steady rate from the start, however long answers take."""

    def __init__(self, rate_per_second: float) -> None:
        """A rate of infinity makes every request due at once."""
        self.stopped = False
        self.behind_seconds_max = 0.0
        self._rate_per_second = rate_per_second
        self._started = time.monotonic()
        self._given = 0
        self._pauses: set[asyncio.Future[None]] = set()

    async def turn(self) -> bool:
        """Wait until the next request is due; False when no more are to be sent."""
        if self._rate_per_second != math.inf and not self.stopped:
            due = self._started + self._given / self._rate_per_second
            self._given += 1
            ahead_seconds = due - time.monotonic()
            if ahead_seconds > 0:
                await self._pause(ahead_seconds)
            else:
                self.behind_seconds_max = max(self.behind_seconds_max, -ahead_seconds)
        return not self.stopped

    def stop(self) -> None:
        """Let no more requests out; whoever waits for a turn is told at once."""
        self.stopped = True
        for pause in self._pauses:
            _end(pause)

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        pause: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _end, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            timer.cancel()
            self._pauses.discard(pause)


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
