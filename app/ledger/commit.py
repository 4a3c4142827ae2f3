"""Group commit: gather, flush once, then answer.

There is no timer. Whatever is submitted while one batch is being committed is the next batch, so a
lone client waits for one sync and a thousand share one. Everything that touches the store stands in
one queue, so the order of arrival is the order of effect: a batch, a deletion, the next batch.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from functools import partial
from typing import Final

import structlog

from app.core.transaction import Row
from app.store.base import Store, StoreFailed, StoreRefused

# A full batch holds the event loop for some 2 ms of inserting.
GATHERED_ROWS_MAX: Final = 1024
# Some 16 MB of rows with their callers; at 20 000 rows a second, less than a second of waiting. One
# submission of many rows may go past it, by its own length.
PENDING_ROWS_MAX: Final = 16_384

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Verdict(Enum):
    """What became of a transaction."""

    ACCEPTED = "accepted"
    """Durable, and counted."""
    LATE = "late"
    """Older than the window: neither kept nor counted."""
    AHEAD = "ahead"
    """Further ahead of the clock than is allowed."""
    UNREADY = "unready"
    """Not taken: the ledger is not ready."""
    REFUSED = "refused"
    """Nothing of it was kept, but the store may take it later."""
    FAILED = "failed"
    """The store broke; nobody knows whether it was kept."""


Done = Callable[[Verdict, Sequence[Row]], None]
"""Called once with the verdict on all rows of a submission."""

_Job = Callable[[], Awaitable[None]]
_Submission = tuple[Sequence[Row], Done]


class GroupCommit:
    """Commits rows in the order they come, as many at once as have gathered.

    `count` is called with the rows that were kept, before their `done`. When the store breaks,
    `on_failure` is called once, what waits is refused and nothing more is taken.
    """

    def __init__(
        self, store: Store, count: Callable[[Sequence[Row]], None], on_failure: Callable[[str], None]
    ) -> None:
        self._store = store
        self._count = count
        self._on_failure = on_failure
        self._jobs: deque[_Job] = deque()
        self._gathering: list[_Submission] | None = None
        self._gathered_rows = 0
        self._pending_rows = 0
        self._wake = asyncio.Event()
        self._is_closing = False
        self._task = asyncio.get_running_loop().create_task(self._run())
        self.has_failed = False
        self.is_refusing = False
        """Whether the store refused the last thing it was asked to keep."""

    @property
    def is_full(self) -> bool:
        """Whether so many rows wait that no more should be submitted."""
        return self._pending_rows >= PENDING_ROWS_MAX

    def submit(self, rows: Sequence[Row], done: Done) -> None:
        """Queue rows that are to be kept together, or not at all."""
        batch = self._gathering
        if batch is None or self._gathered_rows >= GATHERED_ROWS_MAX:
            batch = self._gathering = []
            self._gathered_rows = 0
            self._jobs.append(partial(self._commit, batch))
            self._wake.set()
        batch.append((rows, done))
        self._gathered_rows += len(rows)
        self._pending_rows += len(rows)

    async def run(self, job: _Job) -> None:
        """Run something else on the store, behind all rows submitted before and before all after.

        Raises what the job raises, and StoreFailed where the store has broken before its turn.
        """
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def turn() -> None:
            try:
                await self._guarded(job)
            except (StoreRefused, StoreFailed) as error:
                if not finished.done():
                    finished.set_exception(error)
            else:
                if not finished.done():
                    finished.set_result(None)

        self._gathering = None
        self._jobs.append(turn)
        self._wake.set()
        await finished

    async def probe(self) -> None:
        """Ask a store that refuses whether it would take something now. Raises as `run` does."""
        await self.run(self._store.probe)
        self._note_room()

    async def close(self) -> None:
        """Commit what waits, then stop."""
        self._is_closing = True
        self._wake.set()
        await self._task

    async def _run(self) -> None:
        while self._jobs or not self._is_closing:
            if not self._jobs:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._jobs.popleft()()

    async def _commit(self, batch: list[_Submission]) -> None:
        if batch is self._gathering:
            self._gathering = None
        rows = [row for submitted, _ in batch for row in submitted]

        async def keep_and_count() -> None:
            await self._store.append(rows)
            self._count(rows)

        try:
            await self._guarded(keep_and_count)
        except StoreRefused:
            verdict = Verdict.REFUSED
        except StoreFailed:
            verdict = Verdict.FAILED
        else:
            verdict = Verdict.ACCEPTED
            self._note_room()
        self._pending_rows -= len(rows)
        for submitted, done in batch:
            try:
                done(verdict, submitted)
            except Exception:
                # One caller's trouble must not cost the others their answer.
                log.exception("answer_failed")

    async def _guarded(self, job: _Job) -> None:
        """Run a job on the store, keeping book of how the store is."""
        if self.has_failed:
            raise StoreFailed("the store has failed before")
        try:
            await job()
        except StoreRefused as error:
            was_refusing, self.is_refusing = self.is_refusing, True
            if not was_refusing:
                log.warning("store_refuses", reason=str(error))
            raise
        except Exception as error:
            # An error nobody foresaw leaves the same doubt as a failed sync.
            self.has_failed = True
            self._on_failure(str(error) or type(error).__name__)
            raise StoreFailed(str(error)) from error

    def _note_room(self) -> None:
        if self.is_refusing:
            self.is_refusing = False
            log.info("store_accepts_again")
