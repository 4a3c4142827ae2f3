"""Posts transactions that come one by one in batches: one commit and one answer for many of them."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from app.client.service import BODY_BYTES_MAX, ITEMS_MAX, Service
from app.client.values import (
    LATE,
    BatchPosted,
    ClientError,
    FateUnknown,
    ItemRejected,
    Posted,
    Transaction,
)

# Two brackets around, and a comma behind each item.
_BRACKETS_BYTES: Final = 2
_COMMA_BYTES: Final = 1


class _Waiting(NamedTuple):
    item: bytes
    answered: "asyncio.Future[Posted]"


class Gathering:
    """Gathers transactions for `wait_ms` at most, until they are `items_max` or would not fit.

    Each batch goes out under a key of its own and is sent again under it, so that each of its items is
    kept once. It has no bound but that of its callers, who wait.
    """

    def __init__(
        self,
        service: Service,
        *,
        items_max: int = ITEMS_MAX,
        body_bytes_max: int = BODY_BYTES_MAX,
        wait_ms: float = 5.0,
    ) -> None:
        self._service = service
        self._items_max = min(items_max, ITEMS_MAX)
        self._body_bytes_max = min(body_bytes_max, BODY_BYTES_MAX)
        self._wait_seconds = wait_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._body_bytes = _BRACKETS_BYTES
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def post(self, transaction: Transaction) -> Posted:
        """What became of a transaction. Raises ItemRejected, and what the batch did: ClientError."""
        item = msgspec.json.encode(transaction)
        item_bytes = len(item) + _COMMA_BYTES
        if self._waiting and self._body_bytes + item_bytes > self._body_bytes_max:
            self.flush()
        answered: asyncio.Future[Posted] = self._loop.create_future()
        self._waiting.append(_Waiting(item, answered))
        self._body_bytes += item_bytes
        if len(self._waiting) >= self._items_max:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._wait_seconds, self.flush)
        return await answered

    def flush(self) -> None:
        """Send what has gathered, without waiting for more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting, self._body_bytes = self._waiting, [], _BRACKETS_BYTES
        if waiting:
            task = self._loop.create_task(self._send(waiting))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def drain(self) -> None:
        """Send what has gathered, and wait until all of it has its answer."""
        self.flush()
        while self._sending:
            await asyncio.wait(self._sending)

    async def _send(self, waiting: Sequence[_Waiting]) -> None:
        """Post a batch and tell each item what became of it."""
        told: Sequence[Posted | ClientError]
        try:
            posted = await self._service.post_items([each.item for each in waiting])
            told = _told(posted, len(waiting))
        except ClientError as error:
            told = [error] * len(waiting)
        except BaseException:
            for each in waiting:
                each.answered.cancel()
            raise
        for each, outcome in zip(waiting, told, strict=True):
            if each.answered.done():
                continue  # Its caller waits no more; it may be kept all the same.
            if isinstance(outcome, ClientError):
                each.answered.set_exception(outcome)
            else:
                each.answered.set_result(outcome)


def _told(posted: BatchPosted, items: int) -> Sequence[Posted | ClientError]:
    """What became of each item. Raises FateUnknown where the answer is of another batch."""
    if len(posted.ids) != items:
        raise FateUnknown("the answer is not that of the batch")
    # The first of what is wrong with each.
    rejected = {problem.index: ItemRejected(problem) for problem in reversed(posted.errors)}
    return [
        rejected.get(index, LATE) if identifier is None else Posted(identifier)
        for index, identifier in enumerate(posted.ids)
    ]
