"""Tells every front what is counted, before anyone is told that it is.

Each front has a pipe. What was counted in a turn of the loop is written to all of them, and only then do
the answers of that turn leave: a client who has one finds its transaction counted behind every door, as
a front reads its pipe to the end before it answers a question. The kernel orders that, on any
processor; nothing is shared that could be read while it is being written.

A pipe has room for what a front may have to read after a while without a processor. Where one is full,
answers wait: for all, as the front may be asked by anyone. One that stays full for too long costs the
front its life: it must not answer what it does not know.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Collection
from typing import Final

from app.core.window import Part, Shape
from app.ledger.ledger import Ledger
from app.ledger.statistics import Freshness
from app.server.link import Add, Fresh, News, Restart, Told, Whole, added, frame_news

# What a process without privileges may ask for: some 30 000 parts of 35 bytes, which is what was counted
# in a second at full load where no two transactions are of one millisecond. Linux fills its pages.
_PIPE_BYTES: Final = 2**20
# How long a full pipe may keep answers back while nothing is read from it, and how often in all.
_FULL_SECONDS_MAX: Final = 0.5
_FULL_TIMES_MAX: Final = 10
# All that a front may have to be told at once, when it has just begun or when a window was read back:
# twenty currencies of 70 000 slots. What is more is told to a new one, in steps.
_UNSENT_BYTES_MAX: Final = 64 * 2**20
# Why it ended is what its exit status says.
_GONE: Final = ""


class Line:
    """The pipe to one front. `cut_off` is called with the reason when it cannot go on."""

    def __init__(self, pipe: int, cut_off: Callable[[str], None]) -> None:
        self._pipe = pipe
        self._cut_off = cut_off
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._times_left = 0
        self._is_read = False
        """Whether anything was read of late."""
        self.is_open = True
        """Whether it can be told anything."""
        self.untold: list[str] = []
        """Currencies of which the front has not been told what there was when it began."""
        self.is_followed = False
        """Whether the front may answer questions by what it is told."""
        self.on_empty: Callable[[], None] = lambda: None
        os.set_blocking(pipe, False)
        with contextlib.suppress(OSError):  # It may be more than is left of what its user may have.
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def is_full(self) -> bool:
        """Whether there is something that the pipe had no room for."""
        return bool(self._unsent)

    @property
    def keeps_back(self) -> bool:
        """Whether nobody must be answered before the front has read on."""
        return self.is_followed and bool(self._unsent)

    def write(self, data: bytes) -> None:
        """Put it into the pipe, behind what waits already."""
        if not self.is_open:
            return
        if not self._unsent:
            written = self._try(data)
            if written == len(data) or not self.is_open:
                return
            data = data[written:]
            self._loop.add_writer(self._pipe, self._go_on)
            self._timer = self._loop.call_later(_FULL_SECONDS_MAX, self._expire)
            self._times_left = _FULL_TIMES_MAX
        self._unsent += data
        if len(self._unsent) > _UNSENT_BYTES_MAX:
            self._cut_off("it has too much to read")

    def close(self) -> None:
        """Tell it no more."""
        if self.is_open:
            self.is_open = False
            self._stop_waiting()
            self._unsent.clear()
            os.close(self._pipe)

    def _try(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._pipe, data)
        except BlockingIOError:
            return 0
        except OSError:
            # Its end is noticed at its socket, too; but nobody must wait for it until then.
            self._cut_off(_GONE)
            return 0

    def _go_on(self) -> None:
        written = self._try(self._unsent)
        if self.is_open:
            del self._unsent[:written]
            self._is_read = True
            if not self._unsent:
                self._stop_waiting()
                self.on_empty()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._loop.remove_writer(self._pipe)
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._times_left -= 1
        is_slow = self._is_read and self._times_left > 0
        if self.is_followed and not is_slow:
            self._cut_off("it does not read")
        else:
            # It reads, or it has only begun and nobody waits for it.
            self._is_read = False
            self._timer = self._loop.call_later(_FULL_SECONDS_MAX, self._expire)


class Telling:
    """Follows what is counted. `release` lets the answers go that were kept back until all were told."""

    def __init__(self, ledger: Ledger, release: Callable[[], None]) -> None:
        self._ledger = ledger
        self._statistics = ledger.statistics
        self._release = release
        self._lines: list[Line] = []
        self._news: list[Told] = []
        self._loop = asyncio.get_running_loop()
        self._is_due = False
        self._statistics.follower = self

    def restart(self, shape: Shape) -> None:
        """Nothing is counted any more."""
        self._news.append(Restart(shape))
        self.hurry()

    def add(self, currency: str, parts: Collection[Part]) -> None:
        """These are counted."""
        self._news.append(added(currency, parts))
        self.hurry()

    def note(self, freshness: Freshness) -> None:
        """This is how fresh what was counted is."""
        self._news.append(Fresh(freshness))
        self.hurry()

    def hurry(self) -> None:
        """There is something to be told, or answered: at the end of this turn."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def join(self, line: Line) -> None:
        """Tell one more front all there is, a currency at a turn, and then what comes."""
        if not line.is_open:
            return
        self._tell()
        self._lines.append(line)
        line.untold = list(self._statistics.windows.currencies)
        line.on_empty = lambda: self._go_on(line)
        told: list[Told] = [Restart(self._statistics.windows.shape)]
        if self._statistics.freshness is not None:
            told.append(Fresh(self._statistics.freshness))
        line.write(self._frame(told))
        self._go_on(line)

    def leave(self, line: Line) -> None:
        """Tell it no more, and wait for it no longer."""
        line.close()
        if line in self._lines:
            self._lines.remove(line)
            self.hurry()

    def _turn(self) -> None:
        self._is_due = False
        self._tell()
        if not any(line.keeps_back for line in self._lines):
            self._release()

    def _tell(self) -> None:
        if not self._news:
            return
        news, self._news = self._news, []
        data: bytes | None = None
        for line in list(self._lines):
            if line.untold:
                line.write(self._frame(_of_told(news, line.untold)))
            else:
                data = data or self._frame(news)
                line.write(data)

    def _frame(self, told: list[Told]) -> bytes:
        return frame_news(News(self._ledger.latest_ms, told))

    def _go_on(self, line: Line) -> None:
        """Tell it the next currency, once it has read the last."""
        if line not in self._lines or line.is_full:
            return
        if line.is_followed:
            self.hurry()
        elif line.untold:
            # All that was counted by now is in what it is told now, and must not be told once more.
            self._tell()
            currency = line.untold.pop() if line.untold else None
            if currency is not None:
                line.write(self._frame([added(currency, self._statistics.windows.parts(currency))]))
            self._loop.call_soon(self._go_on, line)
        else:
            # From here on it may be asked.
            line.is_followed = True
            line.write(self._frame([Whole()]))


def _of_told(news: list[Told], untold: list[str]) -> list[Told]:
    """What concerns a front that has not been told yet what there was of some currencies."""
    told: list[Told] = []
    for each in news:
        if isinstance(each, Restart):
            untold.clear()
        if not (isinstance(each, Add) and each.currency in untold):
            told.append(each)
    return told
