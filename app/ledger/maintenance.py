"""What must happen between transactions: a store that refuses is asked again, what is old goes.

It all takes its turn in the queue of the commit, in steps of some milliseconds, so that batches get
theirs.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from app.ledger.commit import GroupCommit
from app.ledger.upkeep import Upkeep
from app.store.base import Store, StoreFailed, StoreRefused

_PURGE_ROWS_MAX: Final = 2000
_EXPIRE_RECORDS_MAX: Final = 2000
_EXPIRY_INTERVAL_MS: Final = 60_000
# Rows past their retention go while others come: each step is short, and followed by a rest in
# proportion to what it took, the wait for its turn included. So the store's time is the posts', mostly,
# and all the more so the busier it is.
_TRIM_ROWS_MAX: Final = 500
_TRIM_RESTS: Final = 8
_TRIM_REST_SECONDS_MAX: Final = 1.0
# What a key stands for is remembered for a day, and an hour more, should a clock be set.
RECORD_AGE_MS_MAX: Final = 25 * 3_600_000
# A store that refuses is asked again this often: without traffic, too, it is to be found well again.
_INTERVAL_SECONDS: Final = 1.0


class Maintenance:
    """Does what is due, one thing after another, for as long as it takes.

    `refill` reads the window back where `is_stale` says that it must be. `retention_ms`: rows are
    deleted when they were kept so long ago; 0 keeps them. Nothing is deleted for its age while the
    clock `is_doubtful`: by another one it may be new.
    """

    def __init__(
        self,
        store: Store,
        commit: GroupCommit,
        upkeep: Upkeep,
        now_ms: Callable[[], int],
        retention_ms: int,
        is_stale: Callable[[], bool],
        is_doubtful: Callable[[], bool],
        refill: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._commit = commit
        self._upkeep = upkeep
        self._now_ms = now_ms
        self._retention_ms = retention_ms
        self._is_stale = is_stale
        self._is_doubtful = is_doubtful
        self._refill = refill
        self._has_cleared_rows = True
        self._expiry_due_ms = 0
        self._trim_due_ms = 0
        self._is_due = asyncio.Event()

    def wake(self) -> None:
        """Look at once what is due."""
        self._is_due.set()

    def note_cleared(self) -> None:
        """There are cleared rows whose space is to be given back."""
        self._has_cleared_rows = True
        self.wake()

    async def run(self) -> None:
        """Do what is due until the store has failed."""
        while True:
            self._is_due.clear()
            rest_seconds = _INTERVAL_SECONDS
            try:
                rest_seconds = await self._do_what_is_due()
            except StoreRefused:
                pass
            except StoreFailed:
                return
            if rest_seconds:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest_seconds):
                        await self._is_due.wait()

    async def _do_what_is_due(self) -> float:
        """For how many seconds nothing more is due."""
        run = self._commit.run
        if self._is_stale():
            await run(self._refill)
        if self._upkeep.has_more:
            await run(self._upkeep.load)
        if self._commit.is_refusing:
            await self._commit.probe()
            return 0 if self._upkeep.has_more else _INTERVAL_SECONDS
        if self._has_cleared_rows:
            await run(self._purge)
        if self._has_expired_records:
            await run(self._expire)
        if self._has_cleared_rows or self._has_expired_records:
            return 0
        rest_seconds = _INTERVAL_SECONDS
        if self._has_old_rows:
            started = monotonic()
            await run(self._trim)
            if self._has_old_rows:
                rest_seconds = min(_TRIM_RESTS * (monotonic() - started), _TRIM_REST_SECONDS_MAX)
        return 0 if self._upkeep.has_more else rest_seconds

    async def _purge(self) -> None:
        self._has_cleared_rows = await self._store.purge(_PURGE_ROWS_MAX)

    @property
    def _has_expired_records(self) -> bool:
        return self._now_ms() >= self._expiry_due_ms and not self._is_doubtful()

    async def _expire(self) -> None:
        now_ms = self._now_ms()
        if not await self._store.expire(now_ms - RECORD_AGE_MS_MAX, _EXPIRE_RECORDS_MAX):
            self._expiry_due_ms = now_ms + _EXPIRY_INTERVAL_MS

    @property
    def _has_old_rows(self) -> bool:
        is_due = bool(self._retention_ms) and self._now_ms() >= self._trim_due_ms
        return is_due and not self._is_doubtful()

    async def _trim(self) -> None:
        now_ms = self._now_ms()
        if not await self._store.trim(now_ms - self._retention_ms, _TRIM_ROWS_MAX):
            self._trim_due_ms = now_ms + _EXPIRY_INTERVAL_MS
