"""The ledger: takes transactions in, keeps them, counts them, and says what it has counted.

Counted only once on disk: a crash may leave a row without a number, which the next start reads back,
but never a number without a row. The clock is read once for each call.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from app.core.idempotency import Key
from app.core.identifier import IdentifierSource
from app.core.transaction import Row, Transaction
from app.core.window import Shape
from app.ledger.commit import Done, GroupCommit, Verdict
from app.ledger.condition import Condition, Dependency, Report
from app.ledger.judgement import Bounds, Judged, Request, Settled
from app.ledger.maintenance import Maintenance
from app.ledger.measures import Measures, StoreState
from app.ledger.nodes import REFILL_AHEAD_MS_MAX, Alone, Membership, Nodes, OneOfSeveral
from app.ledger.outcomes import Outcomes
from app.ledger.reading import Moment, NotReady, Reading, Unready
from app.ledger.statistics import Statistics
from app.ledger.upkeep import Upkeep
from app.ledger.users import Users
from app.store.base import SharedStore, Store, StoreFailed, StoreRefused, identity

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


_OF_THE_STORE: Final = {
    Unready.STORE_FAILED: Condition.UNHEALTHY,
    Unready.STORE_REFUSES: Condition.UNHEALTHY,
    Unready.OVERLOADED: Condition.DEGRADED,
}


class Ledger:
    """Joins store, commit and window. `now_ms` is the clock: milliseconds, rounded up.

    `keeps_late`: what is older than the window is stored all the same. `retention_ms`: rows are deleted
    when they were kept so long ago, but never those that the window may still need; 0 keeps them.
    `users` has the figures of single users, or none; `shared` is the store where it has them, for all
    nodes. `membership`: what other nodes take in is counted.
    """

    def __init__(
        self,
        store: Store,
        shape: Shape,
        identifiers: IdentifierSource,
        now_ms: Callable[[], int],
        on_failure: Callable[[str], None],
        *,
        users: Users | None = None,
        keeps_late: bool = False,
        retention_ms: int = 0,
        membership: Membership | None = None,
        shared: SharedStore | None = None,
    ) -> None:
        self.shape = shape
        # No row lies further ahead of when it was kept than the shape allows for.
        needed_ms = shape.window_ms + shape.rewind_ms_max + shape.ahead_ms
        self._retention_ms = max(retention_ms, needed_ms) if retention_ms else 0
        self._late = Verdict.KEPT if keeps_late else Verdict.LATE
        self._store = store
        self._identifiers = identifiers
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._users = users or Users(shape, 0)
        self._upkeep = Upkeep(self._users, store)
        self.statistics = Statistics(shape, self._users)
        self.outcomes = Outcomes()
        self._rewind_ms = shape.rewind_ms
        self._epoch = 0
        """The store's, of which everything is that is counted."""
        self._moment = Moment(0, 0)
        self._latest_ms = 0
        self._blocked: Unready | None = Unready.STARTING
        self._waiting_clear: asyncio.Future[None] | None = None
        self._membership = membership
        self._shared = shared
        self._nodes: Nodes = Alone(self.statistics)
        self._commit: GroupCommit
        self._maintenance: Maintenance
        self._tasks: list[asyncio.Task[None]] = []
        self.secret = b""
        """What only this service knows, once it is open: 32 bytes, the same after a restart."""

    async def open(self) -> None:
        """Open the store and read the last window back. Raises StoreUnusable and StoreFailed."""
        await self._store.open()
        self.secret = await self._store.secret()
        self._commit = GroupCommit(self._store, self._count, self._on_failure)
        self._maintenance = Maintenance(
            self._store,
            self._commit,
            self._upkeep,
            self._now_ms,
            self._retention_ms,
            lambda: self._blocked is Unready.CLOCK_STEPPED,
            lambda: self._nodes.is_clock_doubtful,
            self._refill,
        )
        if self._membership is not None:
            self._nodes = OneOfSeveral(
                self._membership,
                self._store,
                identity(self.secret),
                self.shape,
                self.statistics,
                self._now_ms,
                self._begin_epoch,
            )
        await self._commit.run(self._refill)
        await self._nodes.open()
        works = self._maintenance.run(), self._upkeep.sweep(self._oldest_ms)
        self._tasks = [asyncio.get_running_loop().create_task(work) for work in works]

    async def close(self) -> None:
        """Keep what was submitted, then close the store. Nothing is taken from here on."""
        self._blocked = Unready.DRAINING
        for task in self._tasks:
            task.cancel()
        await self._commit.close()
        await self._nodes.close()
        await self._store.close()

    def submit(self, transaction: Transaction, done: Done) -> None:
        """Take in one transaction; `done` is called once, at once or when it is durable and counted."""
        now_ms = self._read_clock()
        timestamp_ms = transaction.timestamp_ms
        if timestamp_ms < now_ms - self.shape.window_ms:
            if self._late is Verdict.KEPT:
                row = Row(self._identifiers.next(now_ms), transaction)
                self._submit_rows((row,), partial(_done_late, done))
            else:
                done(Verdict.LATE, ())
        elif timestamp_ms > now_ms + self.shape.ahead_ms:
            done(Verdict.AHEAD, ())
        else:
            self._submit_rows((Row(self._identifiers.next(now_ms), transaction),), done)

    def submit_request(
        self,
        transactions: Sequence[Transaction],
        word: Callable[[Judged], bytes | None],
        done: Callable[[Settled], None],
        key: Key | None = None,
        item_keys: Sequence[Key | None] = (),
        *,
        keeps_late: bool = False,
    ) -> None:
        """Take in transactions that came together, by one reading of the clock, and keep them together.

        `key` covers all of them; `item_keys` has one or None for each, or is empty. `word` and `done`
        are those of a Request; `done` is called once, at once or when what was accepted is counted.
        `keeps_late`: what is older than the window is stored, whatever becomes of others.
        """
        now_ms = self._read_clock()
        from_ms, to_ms = now_ms - self.shape.window_ms, now_ms + self.shape.ahead_ms
        bounds = Bounds(now_ms, from_ms, to_ms, Verdict.KEPT if keeps_late else self._late)
        # Made now, though some may not be used: ids sort by arrival, whenever they are settled.
        identifiers = self._identifiers.take(now_ms, len(transactions))
        request = Request(transactions, bounds, identifiers, word, done, key, item_keys)
        if request.digests:
            if self.is_shut:
                request.done(Verdict.UNREADY)
            else:
                self._commit.submit_keyed(request)
            return
        rows, _ = request.settle({})
        if rows:
            self._submit_rows(rows, request.done)
        else:
            request.done(Verdict.ACCEPTED)

    def _submit_rows(self, rows: Sequence[Row], done: Done) -> None:
        """Keep all of these rows or none; `done` is called once, at once or when they are counted."""
        if self.is_shut:
            done(Verdict.UNREADY, ())
        else:
            self._commit.submit(rows, done)

    @property
    def is_shut(self) -> bool:
        """Whether whatever is submitted now is refused unseen: no need to look at it."""
        return bool(self._blocked or self._commit.has_failed or self._commit.is_full)

    def moment(self) -> Moment:
        """Now, and what has been counted by now.

        Raises NotReady while the window is being read back: no figure is better than a wrong one.
        """
        now_ms = self._read_clock()
        if self._blocked and self._blocked is not Unready.DRAINING:
            raise NotReady(self._blocked)
        version = self.statistics.version
        if (now_ms, version) != self._moment:
            self._moment = Moment(now_ms, version)
        return self._moment

    @property
    def has_users(self) -> bool:
        """Whether there are figures of single users at all."""
        return self._users.rows_max > 0 or self._shared is not None

    def read(
        self,
        moment: Moment,
        window_ms: int | None = None,
        currency: str | None = None,
        user_id: str | None = None,
    ) -> Reading:
        """The figures of the newest `window_ms` (or the whole window), of one currency and user or all.

        Those of one user raise Missing as long as not all of their transactions are known.
        """
        if window_ms is None:
            window_ms = self.shape.window_ms
        from_ms = moment.now_ms - window_ms
        if user_id is None:
            figures = self.statistics.windows.since(from_ms, currency)
        else:
            figures = self._users.since(user_id, from_ms, currency)
        return Reading(moment.now_ms, window_ms, figures, self.statistics.freshness)

    async def read_shared(
        self, moment: Moment, window_ms: int | None, currency: str | None, user_id: str
    ) -> Reading:
        """As `read`, of a user, of whom other nodes have taken in something as well.

        Raises NotReady where the store does not answer.
        """
        if self._shared is None:
            raise ValueError("the store is no other node's")
        window_ms = window_ms or self.shape.window_ms
        from_ms = moment.now_ms - window_ms
        # As exact as those of all, so that the figures of users add up to them.
        from_ms -= from_ms % self.shape.resolution_ms
        try:
            figures = await self._shared.user_figures(user_id, from_ms, currency)
        except (StoreRefused, StoreFailed) as error:
            raise NotReady(Unready.STORE_REFUSES) from error
        return Reading(moment.now_ms, window_ms, figures, None)

    async def clear(self) -> Verdict:
        """Delete everything accepted so far; what that came to, once it is durable.

        Deletions that wait share one: whatever was acknowledged before any of them is on disk already.
        """
        if self._blocked or self._commit.has_failed:
            return Verdict.UNREADY
        if self._waiting_clear is None:
            if self._commit.is_full:
                return Verdict.UNREADY
            self._waiting_clear = self._commit.run(self._clear)
        try:
            await asyncio.shield(self._waiting_clear)
        except StoreRefused:
            return Verdict.REFUSED
        except StoreFailed:
            return Verdict.FAILED
        return Verdict.ACCEPTED

    def why_unready(self) -> Unready | None:
        """Why a transaction would not be taken now; None where it would."""
        self._read_clock()
        if self._blocked:
            return self._blocked
        if self._commit.has_failed:
            return Unready.STORE_FAILED
        if self._commit.is_refusing:
            return Unready.STORE_REFUSES
        if self._commit.is_full:
            return Unready.OVERLOADED
        return Unready.CLOCK_SKEWED if self._nodes.is_skewed else None

    def report(self) -> Report:
        """How this service is, and what it depends on."""
        store = Dependency("store", Condition.HEALTHY)
        window = Dependency("window", Condition.HEALTHY)
        reason = self.why_unready()
        if reason is not None and reason in _OF_THE_STORE:
            store = Dependency("store", _OF_THE_STORE[reason], reason.value)
        elif reason in (Unready.STARTING, Unready.CLOCK_STEPPED):
            window = Dependency("window", Condition.UNHEALTHY, reason.value)
        return Report([store, window, *self._nodes.dependencies()], self._nodes.others())

    def measure(self) -> Measures:
        """How it is now, in numbers. It is open."""
        is_ready, commit = self.why_unready() is None, self._commit
        if commit.has_failed:
            store = StoreState.FAILED
        else:
            store = StoreState.REFUSING if commit.is_refusing else StoreState.HEALTHY
        try:
            transactions = self.read(self.moment()).figures.overall.count
        except NotReady:
            transactions = None
        return Measures(
            is_ready=is_ready,
            store=store,
            queue_rows=commit.pending_rows,
            commit_seconds=commit.seconds,
            commit_rows=commit.rows,
            window_transactions=transactions,
            window_bytes=self.statistics.windows.allocated_bytes,
            user_rows=self._users.rows,
            cooperation=self._nodes.cooperation(),
        )

    @property
    def latest_ms(self) -> int:
        """The latest time that was read from the clock, and not taken back by it since."""
        return self._latest_ms

    def note_clock(self, latest_ms: int) -> None:
        """Note that another process has read so late a time from the same clock."""
        self._latest_ms = max(self._latest_ms, latest_ms)
        self._read_clock()

    def _read_clock(self) -> int:
        now_ms = self._now_ms()
        if now_ms > self._latest_ms:
            self._latest_ms = now_ms
        elif self._latest_ms - now_ms > self._rewind_ms and not self._blocked:
            # The ring may have let go of what is inside the window once more.
            log.warning("clock_stepped_back", by_ms=self._latest_ms - now_ms)
            self._blocked = Unready.CLOCK_STEPPED
            self._maintenance.wake()
        return now_ms

    def _count(self, rows: Sequence[Row], epoch: int) -> None:
        self.outcomes.accepted += len(rows)
        if epoch > self._epoch:
            self._begin_epoch(epoch)
        if epoch == self._epoch:
            self._nodes.count(rows)

    async def _clear(self) -> None:
        self._waiting_clear = None
        epoch = await self._store.clear()
        # Another node may have deleted everything since, and have been heard first.
        if epoch > self._epoch:
            self._begin_epoch(epoch)
        self._maintenance.note_cleared()

    def _begin_epoch(self, epoch: int) -> None:
        """Forget what was kept before the deletion that began this epoch."""
        self._epoch = epoch
        self._nodes.begin_epoch(epoch)
        self._upkeep.clear()

    async def _refill(self) -> None:
        now_ms = self._now_ms()
        # Further back than the window: a clock that steps back by no more than the ring allows for is
        # not noticed, and must find there what it would find in a ring that was never refilled.
        from_ms = now_ms - self.shape.window_ms - self.shape.rewind_ms_max
        to_ms = now_ms + REFILL_AHEAD_MS_MAX
        self._epoch, tallies = await self._store.tally(from_ms, to_ms, self.shape.resolution_ms)
        newest_ms = max((tally.slot_ms for tally in tallies), default=now_ms)
        ahead_ms = max(self.shape.ahead_ms, newest_ms - now_ms)
        shape = Shape.covering(self.shape.window_ms, ahead_ms)
        self._rewind_ms = shape.rewind_ms
        self._nodes.restart(shape, self._epoch, tallies)
        transactions = sum(tally.summary.count for tally in tallies)
        self._latest_ms = now_ms
        await self._upkeep.begin(shape, from_ms, to_ms, transactions, newest_ms + shape.resolution_ms)
        if self._blocked in (Unready.STARTING, Unready.CLOCK_STEPPED):
            self._blocked = None
        log.info("window_read_back", transactions=transactions)

    def _oldest_ms(self) -> int:
        """What is older is in nobody's window, even where the clock steps back without being noticed."""
        return self._latest_ms - self.shape.window_ms - self._rewind_ms


def _done_late(done: Done, verdict: Verdict, rows: Sequence[Row]) -> None:
    done(Verdict.KEPT if verdict is Verdict.ACCEPTED else verdict, rows)
