"""Group commit: gather, flush once, then answer.

There is no timer. Whatever is submitted while one batch is being committed is the next batch, so a
lone client waits for one sync and a thousand share one. Everything that touches the store stands in
one queue, so the order of arrival is the order of effect: a batch, a deletion, the next batch.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from time import monotonic
from typing import Final, Protocol

import structlog

from app.core.histogram import Histogram
from app.core.idempotency import Record
from app.core.transaction import Row
from app.store.base import KeysTaken, Store, StoreFailed, StoreRefused

# A full batch holds the event loop for some 2 ms of inserting.
GATHERED_ROWS_MAX: Final = 1024
# Some 16 MB of rows with their callers; at 20 000 rows a second, less than a second of waiting. One
# submission of many rows may go past it, by its own length.
PENDING_ROWS_MAX: Final = 16_384
# On a slow disk so many rows would wait for longer than that is worth: what would have to wait longer
# than this, by the pace of the last commits, is not taken.
PENDING_SECONDS_MAX: Final = 0.1
# Nobody knows when one that takes longer will end: the disk or the server may hang.
COMMIT_SECONDS_MAX: Final = 1.0

# A sync takes some hundred microseconds on a good disk, and a server's answer some milliseconds.
_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_ROWS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, GATHERED_ROWS_MAX, 2500, 5000, 10_000)

# Whoever takes a key between its being looked up and its being kept does so once.
_TRIES_MAX: Final = 5

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Verdict(Enum):
    """What became of a transaction."""

    ACCEPTED = "accepted"
    """Durable, and counted."""
    KEPT = "kept"
    """Durable; older than the window, so not counted."""
    REPEATED = "repeated"
    """A repeat of what was accepted under the same key: nothing was done, the first answer stands."""
    CONFLICT = "conflict"
    """Its key stands for something else."""
    LATE = "late"
    """Older than the window: neither kept nor counted."""
    AHEAD = "ahead"
    """Further ahead of the clock than is allowed."""
    DECLINED = "declined"
    """Nothing of a request was kept, as of all of its parts one was not acceptable."""
    UNREADY = "unready"
    """Not taken: the ledger is not ready."""
    REFUSED = "refused"
    """Nothing of it was kept, but the store may take it later."""
    FAILED = "failed"
    """The store broke; nobody knows whether it was kept."""


Done = Callable[[Verdict, Sequence[Row]], None]
"""Called once with the verdict on all rows of a submission."""


class Keyed(Protocol):
    """A submission that must know what its keys stand for before it says what is to be kept."""

    digests: Sequence[bytes]
    weight: int
    """How many transactions it waits with."""

    def settle(self, known: Mapping[bytes, Record]) -> tuple[Sequence[Row], Sequence[Record]]:
        """What is to be kept of it, given the records there are of its keys."""

    def done(self, verdict: Verdict, rows: Sequence[Row]) -> None:
        """Called once: ACCEPTED where it has become as it was settled."""


_Job = Callable[[], Awaitable[None]]


class _Batch:
    """What is committed together. The keyed come last: an earlier one may be what they repeat."""

    __slots__ = ("keyed", "plain", "weight")

    def __init__(self) -> None:
        self.plain: list[tuple[Sequence[Row], Done]] = []
        self.keyed: list[Keyed] = []
        self.weight = 0


class GroupCommit:
    """Commits rows in the order they come, as many at once as have gathered.

    `count` is called with the rows that were kept and their epoch, before their `done`. When the store
    breaks, `on_failure` is called once, what waits is refused and nothing more is taken.
    """

    def __init__(
        self,
        store: Store,
        count: Callable[[Sequence[Row], int], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._store = store
        self._count = count
        self._on_failure = on_failure
        self._jobs: deque[_Job] = deque()
        self._gathering: _Batch | None = None
        self.pending_rows = 0
        """How many wait, those of the commit under way included."""
        self.seconds = Histogram(_SECONDS)
        """How long the store took to keep each batch that it kept, and what had to be read for that."""
        self.rows = Histogram(_ROWS)
        """How many rows each of them had."""
        self._last_seconds = 0.0
        self._pace_seconds = 0.0
        """What a commit takes: the shorter of the last two, as one may have copied back the WAL."""
        self._began_seconds: float | None = None
        """When what is under way on the store began."""
        self._wake = asyncio.Event()
        self._is_closing = False
        self._task = asyncio.get_running_loop().create_task(self._run())
        self.has_failed = False
        self.is_refusing = False
        """Whether the store refused the last thing it was asked to keep."""

    @property
    def is_full(self) -> bool:
        """Whether so many rows wait, or for so long, that no more should be submitted."""
        if self.pending_rows >= PENDING_ROWS_MAX:
            return True
        began_seconds = self._began_seconds
        if began_seconds is not None and monotonic() - began_seconds > COMMIT_SECONDS_MAX:
            return True
        # What joins a batch that is gathering, or is the first of the next, makes nobody wait.
        batch = self._gathering
        if not self._jobs or (batch is not None and batch.weight < GATHERED_ROWS_MAX):
            return False
        # It would wait for the one under way, for those in the queue, and for its own.
        return (len(self._jobs) + 2) * self._pace_seconds > PENDING_SECONDS_MAX

    def submit(self, rows: Sequence[Row], done: Done) -> None:
        """Queue rows that are to be kept together, or not at all."""
        self._gather(len(rows)).plain.append((rows, done))

    def submit_keyed(self, keyed: Keyed) -> None:
        """Queue what is to be kept only where its keys do not stand for anything yet.

        Keys need no lock: whoever comes later is looked up when all before it is on disk.
        """
        self._gather(keyed.weight).keyed.append(keyed)

    def run(self, job: _Job) -> asyncio.Future[None]:
        """Run something else on the store, behind all rows submitted before and before all after.

        The future has what the job raises, and StoreFailed where the store has broken before its turn.
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
        return finished

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
            self._began_seconds = monotonic()
            await self._jobs.popleft()()
            self._began_seconds = None

    def _gather(self, weight: int) -> _Batch:
        batch = self._gathering
        if batch is None or batch.weight >= GATHERED_ROWS_MAX:
            batch = self._gathering = _Batch()
            self._jobs.append(partial(self._commit, batch))
            self._wake.set()
        batch.weight += weight
        self.pending_rows += weight
        return batch

    async def _commit(self, batch: _Batch) -> None:
        if batch is self._gathering:
            self._gathering = None

        async def keep_and_count() -> None:
            kept = await self._keep(batch)
            if kept is not None:
                self.seconds.observe(monotonic() - started)
                self.rows.observe(len(kept[0]))
                self._count(*kept)
                self._note_room()

        started = monotonic()
        try:
            await self._guarded(keep_and_count)
        except StoreRefused:
            verdict = Verdict.REFUSED
        except StoreFailed:
            verdict = Verdict.FAILED
        else:
            verdict = Verdict.ACCEPTED
        self.pending_rows -= batch.weight
        seconds = monotonic() - started
        self._pace_seconds, self._last_seconds = min(seconds, self._last_seconds), seconds
        for submitted, done in [*batch.plain, *(((), keyed.done) for keyed in batch.keyed)]:
            try:
                done(verdict, submitted)
            except Exception:
                # One caller's trouble must not cost the others their answer.
                log.exception("answer_failed")

    async def _keep(self, batch: _Batch) -> tuple[list[Row], int] | None:
        """The rows of a batch and their epoch, once kept; None where there was nothing to keep."""
        for number in range(1, _TRIES_MAX + 1):
            rows = [row for submitted, _ in batch.plain for row in submitted]
            records: list[Record] = []
            if batch.keyed:
                await self._settle(batch.keyed, rows, records)
            if not (rows or records):
                return None
            try:
                epoch = await self._store.append(rows, records)
            except KeysTaken:
                # Nothing was kept and nobody was told anything: what the keys stand for is there now.
                if number == _TRIES_MAX:
                    raise
            else:
                return rows, epoch
        raise AssertionError("the last try returns or raises")

    async def _settle(self, batch: list[Keyed], rows: list[Row], records: list[Record]) -> None:
        """Add what is to be kept of the keyed."""
        known = await self._store.find([digest for keyed in batch for digest in keyed.digests])
        for keyed in batch:
            try:
                new_rows, new_records = keyed.settle(known)
            except Exception:
                # Nothing of it is kept, and it will say so; the others are none the worse.
                log.exception("settle_failed")
                continue
            rows += new_rows
            records += new_records
            known.update((record.key.digest, record) for record in new_records)
        # The store's order is that of the ids, which were made as they came.
        rows.sort(key=_identifier)

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


def _identifier(row: Row) -> int:
    return row.id
