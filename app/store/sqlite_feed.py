"""The feed on SQLite: an index that follows the ledger, in a file of its own beside it.

The ledger stays a table that is only appended to: indexes on its rows would cost every transaction more
than all else together. The index is derived. It is not synced with every change, may be deleted when the
service is stopped, and is made anew where it does not fit or fails. It follows the ledger within a
second, in the background, and a question is answered when it has caught up with all that was
acknowledged before.

It has threads in which nearly everything is C: meanwhile the event loop has the interpreter.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

import apsw
import structlog

from app.core.question import Page, Portion, Question
from app.core.transaction import Row
from app.store.base import StoreRefused, StoreUnusable
from app.store.sqlite_index import Index, Tip
from app.store.worker import Worker

Result = TypeVar("Result")

# Some 10 to 50 ms; who reads waits for one at most.
_STEP_ROWS: Final = 2000
# Small steps cost more a row, and nobody waits for these.
_LAG_SECONDS: Final = 0.5
# Following takes a sixth of what posts take, and where they take all of a processor it stands back. Who
# reads does not: they catch up in a thread of their own.
_NICENESS: Final = 10
# Some 3 s of catching up: who asks when more is missing is asked to come again.
_BEHIND_ROWS_MAX: Final = 500_000
_REMAKE_SECONDS: Final = 10.0

_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def index_path(path: Path) -> Path:
    """Where the index of the ledger at `path` is kept."""
    return path.with_name(path.name + "-feed")


class Feed:
    """Answers questions to the ledger at `path`, which another connection writes.

    `step_rows` are taken into the index at a time; where more than `behind_rows_max` are missing,
    nothing is answered. Any call may raise StoreRefused: what goes wrong here is no matter of the
    ledger's.
    """

    def __init__(
        self, path: Path, step_rows: int = _STEP_ROWS, behind_rows_max: int = _BEHIND_ROWS_MAX
    ) -> None:
        self._ledger_path = path
        self._path = index_path(path)
        self._step_rows = step_rows
        self._behind_rows_max = behind_rows_max
        self._reading = Worker("feed")
        self._background = Worker("feed-follow", _NICENESS)
        self._turn = threading.Lock()
        """Whose thread has the index: one that waits for the other does not hold the event loop."""
        self._index: Index | None = None
        self._tip = Tip(0, 0, 0, 0)
        self._due = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._made_at = -_REMAKE_SECONDS
        self._is_closing = False

    async def open(self, tip: Tip) -> None:
        """Open or make the index, and begin to follow. Raises StoreUnusable."""
        try:
            await self._reading.run(self._open_or_make)
        except (apsw.Error, OSError) as error:
            raise StoreUnusable(f"cannot use {self._path}: {error}") from error
        self._following = asyncio.get_running_loop().create_task(self._follow())
        self.note(tip)

    def note(self, tip: Tip) -> None:
        """The ledger has come that far."""
        self._tip = tip
        self._due.set()

    @property
    def behind_rows(self) -> int:
        """How many rows of the ledger are not in the index yet."""
        tip = self._tip
        epoch, seq = (-1, 0) if self._index is None else self._index.indexed
        return tip.last_seq - max(seq if epoch == tip.epoch else 0, tip.cleared_seq)

    async def get(self, identifier: int) -> Row | None:
        """The row of that id."""
        return await self._answer(lambda index: index.get(identifier))

    async def page(self, question: Question, portion: Portion) -> Page:
        """The rows that were asked for."""
        return await self._answer(lambda index: index.page(question, portion))

    async def remake(self) -> None:
        """Begin with an empty file again: of an index, deletions leave the space they took."""
        self._made_at = -_REMAKE_SECONDS
        await self._reading.run(self._close)
        await self._run(self._reading, lambda index: index.step(self._tip))

    async def close(self) -> None:
        """Stop following, and close the index as it is: the next start goes on from there."""
        if self._following is not None:
            self._following.cancel()
        self._is_closing = True
        if self._index is not None:
            self._index.interrupt()
        await self._reading.run(self._close)
        # What it still does has an answer to give, to a loop that must be there.
        await self._background.run(lambda: None)
        for worker in (self._reading, self._background):
            worker.stop()

    async def _follow(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(_LAG_SECONDS)
            self._due.clear()
            try:
                await self._catch_up(self._background, self._tip)
            except StoreRefused:
                # Nobody else may ever say that it is due.
                self._due.set()

    async def _answer(self, read: Callable[[Index], Result]) -> Result:
        """What is read once the index has come to where the ledger is now."""
        tip = self._tip
        if self.behind_rows > self._behind_rows_max:
            # Should what follows have failed, nothing else may come that it would go on for.
            self._due.set()
            raise StoreRefused("the feed is catching up with the ledger")
        await self._catch_up(self._reading, tip)
        return await self._run(self._reading, read)

    async def _catch_up(self, worker: Worker, tip: Tip) -> None:
        while self._index is None or not self._index.has_come_to(tip):
            await self._run(worker, lambda index: index.step(self._tip))

    async def _run(self, worker: Worker, call: Callable[[Index], Result]) -> Result:
        """Run a call in one of the threads."""

        def guarded() -> Result:
            if self._is_closing:
                # What is queued would each take its time, and nobody is left to hear of it.
                raise StoreRefused("the feed is closing")
            try:
                return call(self._index or self._make())
            except apsw.FullError as error:
                raise StoreRefused("there is no room for the feed's index") from error
            except (apsw.BusyError, apsw.LockedError) as error:
                raise StoreRefused("the ledger or the feed's index is locked") from error
            except apsw.InterruptError as error:
                raise StoreRefused("the question takes too long") from error
            except (apsw.Error, OSError) as error:
                if self._is_closing:
                    # A step that is broken off has been rolled back, which its end then cannot do.
                    raise StoreRefused("the feed is closing") from error
                log.exception("feed_index_failed")
                self._abandon()
                raise StoreRefused("the feed's index is made anew") from error

        def in_turn() -> Result:
            with self._turn:
                return guarded()

        return await worker.run(in_turn)

    def _open_or_make(self) -> None:
        try:
            self._index = self._open()
        except apsw.Error:
            self._make()

    def _make(self) -> Index:
        """Begin with an empty index, but not again and again."""
        if monotonic() - self._made_at < _REMAKE_SECONDS:
            raise StoreRefused("the feed's index cannot be used")
        self._made_at = monotonic()
        for suffix in _SUFFIXES:
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._index = self._open()
        return self._index

    def _open(self) -> Index:
        return Index(self._path, self._ledger_path, self._step_rows)

    def _close(self) -> None:
        with self._turn:
            self._abandon()

    def _abandon(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
