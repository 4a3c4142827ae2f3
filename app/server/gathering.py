"""What all processes have counted, the fronts that are gone included: totals never go back."""

import asyncio
from typing import Final

from app.server.desk import Desk
from app.web.counts import Counts, Tally
from app.web.metrics import Gathered

# A front that turns answers in a millisecond or so; of one that does not, what it said last is taken.
_ASK_SECONDS: Final = 0.25


class Gathering:
    """Asks every front that serves, where the back itself counts in `counts`."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._desks: dict[int, Desk] = {}
        self._gone = Tally()
        """The sum of what those had counted that are gone, as far as they had said so."""
        self._restarts = 0

    def join(self, index: int, desk: Desk) -> None:
        """There is a front, in the place of that number."""
        self._desks[index] = desk

    def leave(self, index: int) -> None:
        """It has ended."""
        self._gone.add(self._desks.pop(index).tally)

    def note_restart(self) -> None:
        """A front that has died is started again."""
        self._restarts += 1

    async def gather(self) -> Gathered:
        """What has been counted by now, as far as that can be had soon."""
        for desk in self._desks.values():
            desk.has_tally.clear()
            desk.ping()
        heard = asyncio.gather(*(desk.has_tally.wait() for desk in self._desks.values()))
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await heard
        except TimeoutError:
            pass
        total = self._counts.tally()
        total.add(self._gone)
        workers = {index: desk.tally for index, desk in sorted(self._desks.items())}
        for tally in workers.values():
            total.add(tally)
            total.connections += tally.connections
        return Gathered(total, workers, self._restarts)
