"""What figures of single users need beside new transactions: to be read back, and to be swept.

They are read back in small steps, each a job of the commit's queue, so that batches get their turn. The
first one is made before anything new is taken, and settles which rows there are to read: whatever is
recorded meanwhile comes behind them, and nothing is recorded twice.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from app.core.window import Shape
from app.ledger.users import Users
from app.store.base import Store, Walk

# A step takes some milliseconds; a million rows are five hundred of them.
_LOAD_ROWS_MAX: Final = 2000
_SWEEP_SECONDS: Final = 1.0


class _Unread(NamedTuple):
    """What is still to be read back."""

    from_ms: int
    to_ms: int
    walk: Walk | None = None


class Upkeep:
    """Keeps `users` true to the store and to the clock."""

    def __init__(self, users: Users, store: Store) -> None:
        self._users = users
        self._store = store
        self._unread: _Unread | None = None

    @property
    def has_more(self) -> bool:
        """Whether not everything is read back yet."""
        return self._unread is not None

    async def begin(self, shape: Shape, from_ms: int, to_ms: int, rows: int, newest_ms: int) -> None:
        """Forget all users and begin to read them back: of so many rows, the newest of that time.

        More rows than there is room for are not even begun with.
        """
        users = self._users
        users.restart(shape, from_ms)
        self._unread = None
        if rows > users.rows_max:
            users.miss(newest_ms)
        elif rows:
            users.is_loading, self._unread = True, _Unread(from_ms, to_ms)
            await self.load()

    async def load(self) -> None:
        """Read back a little more. Raises StoreRefused and StoreFailed."""
        unread = self._unread
        if unread is None:
            return
        found = await self._store.recent(unread.from_ms, unread.to_ms, _LOAD_ROWS_MAX, unread.walk)
        self._users.record(found.transactions)
        self._unread = None if found.rest is None else unread._replace(walk=found.rest)
        self._users.is_loading = self.has_more

    def clear(self) -> None:
        """Forget all users, also those that are not read back yet."""
        self._users.clear()
        self._unread = None

    async def sweep(self, oldest_ms: Callable[[], int]) -> None:
        """Drop every second, for ever, what is older than it is asked for."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._users.sweep(oldest_ms())
