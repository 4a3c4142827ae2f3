"""A copy of what a ledger has counted, in a process of its own, and as good as the original.

Whatever the ledger counts is told at once and in order; before a question is answered, all that has been
told by then is heard. So whoever was told that a transaction is kept finds it counted here.
"""

from collections.abc import Callable, Collection
from typing import Final

from app.core.window import Part, Shape
from app.core.windows import Windows
from app.ledger.reading import Moment, NotReady, Reading, Unready
from app.ledger.statistics import Freshness

# What was counted comes with each commit, a few parts of each currency; to count it takes half as long
# where many come together. Nobody who asks waits for more than some milliseconds.
_GATHERED_MAX: Final = 1024


class Mirror:
    """Follows a ledger. `now_ms` is the same clock as the ledger's.

    `has_users` says whether that one has figures of single users; here there are none in any case.
    `catch_up` is to have all applied that was told so far; `on_rewind` is called when the clock was set
    back so far that the ledger must read its window back, with the latest time that was read from it.
    """

    def __init__(
        self,
        shape: Shape,
        has_users: bool,
        now_ms: Callable[[], int],
        catch_up: Callable[[], object],
        on_rewind: Callable[[int], object],
    ) -> None:
        self.shape = shape
        self.has_users = has_users
        self._now_ms = now_ms
        self._catch_up = catch_up
        self._on_rewind = on_rewind
        self._windows = Windows(shape)
        self._gathered: dict[str, list[Part]] = {}
        """What is not in the windows yet, by currency."""
        self._freshness: Freshness | None = None
        self._version = 0
        self._moment = Moment(0, 0)
        self._rewind_ms = shape.rewind_ms
        self._latest_ms = 0
        """By the clock here, and where the ledger is."""

    def restart(self, shape: Shape) -> None:
        """Forget everything; what comes from here on is counted in this shape."""
        self._gathered.clear()
        self._windows.restart(shape)
        self._rewind_ms = shape.rewind_ms
        self._latest_ms = 0
        self._version += 1

    def note_clock(self, latest_ms: int) -> None:
        """Note that the ledger has read so late a time from the clock."""
        self._latest_ms = max(self._latest_ms, latest_ms)

    def add(self, currency: str, parts: Collection[Part]) -> None:
        """Count these, by the next question at the latest."""
        gathered = self._gathered.get(currency)
        if gathered is None:
            gathered = self._gathered[currency] = []
        gathered += parts
        if len(gathered) >= _GATHERED_MAX:
            self._count()
        self._version += 1

    def note(self, freshness: Freshness) -> None:
        """Note how fresh what is counted is."""
        self._freshness = freshness
        self._version += 1

    def moment(self) -> Moment:
        """Now, and what has been counted by now. Raises NotReady."""
        self._catch_up()
        now_ms = self._now_ms()
        if now_ms > self._latest_ms:
            self._latest_ms = now_ms
        elif self._latest_ms - now_ms > self._rewind_ms:
            # As the ledger would: it tells all there is once it has read its window back.
            self._on_rewind(self._latest_ms)
            raise NotReady(Unready.CLOCK_STEPPED)
        if (now_ms, self._version) != self._moment:
            self._count()
            self._moment = Moment(now_ms, self._version)
        return self._moment

    def _count(self) -> None:
        self._windows.add(self._gathered)
        self._gathered.clear()

    def read(
        self,
        moment: Moment,
        window_ms: int | None = None,
        currency: str | None = None,
        user_id: str | None = None,
    ) -> Reading:
        """The figures of the newest `window_ms` (or the whole window), of one currency or all.

        Those of one user are the ledger's alone.
        """
        if user_id is not None:
            raise ValueError("a mirror knows no users")
        if window_ms is None:
            window_ms = self.shape.window_ms
        figures = self._windows.since(moment.now_ms - window_ms, currency)
        return Reading(moment.now_ms, window_ms, figures, self._freshness)
