"""The answers of a connection leave in the order of its requests, whenever they are ready."""

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from math import inf
from typing import Final

from app.web.answers import Answer
from app.web.counts import Statuses
from app.web.fast_lane import Head
from app.web.request_log import UNREAD, Request, RequestLog
from app.web.resource import make_request_id
from app.web.trace import trace_id

_BAD_REQUEST: Final = int(HTTPStatus.BAD_REQUEST)


class Slot:
    """The place of one answer among the answers of its connection; called with it."""

    __slots__ = ("_slots", "_statuses", "answer", "begun_at", "head", "request_id")

    def __init__(
        self,
        slots: "Slots",
        request_id: bytes | None,
        begun_at: float,
        head: Head | None,
        statuses: Statuses,
    ) -> None:
        self._slots = slots
        self._statuses = statuses
        self.request_id = request_id
        self.begun_at = begun_at
        self.head = head
        self.answer: Answer | None = None

    def __call__(self, answer: Answer) -> None:
        """Take the answer; written when its turn comes."""
        self.answer = answer
        self._statuses[answer.status] += 1
        self._slots.answered()


class Slots:
    """The slots of a connection, written from the front.

    `is_last` says whether nothing comes behind the slot that was just taken out; `on_empty` is called
    when all are written. `request_log` is None where nobody looks.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        is_last: Callable[[], bool],
        on_empty: Callable[[], None],
        request_log: RequestLog | None = None,
    ) -> None:
        self.queue: deque[Slot] = deque()
        self._loop = loop
        self._transport = transport
        self._is_last = is_last
        self._on_empty = on_empty
        self._request_log = request_log
        self._slow_seconds = inf if request_log is None else request_log.slow_seconds
        self._flush_due = False
        self.is_filling = False
        """Whether more slots are being added, whose answers are to leave with those that are there."""
        self.closes_behind = False
        """Whether the connection closes behind the last of them."""

    def add(
        self, request_id: bytes | None, begun_at: float, head: Head | None, statuses: Statuses
    ) -> Slot:
        """The place behind all others, its answer counted in `statuses`.

        A request that was refused at once has no head.
        """
        slot = Slot(self, request_id, begun_at, head, statuses)
        self.queue.append(slot)
        return slot

    def answered(self) -> None:
        """Note that a slot has its answer. Several of one turn of the loop leave in one write."""
        if self.is_filling:
            return
        if len(self.queue) == 1:
            self.flush()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write every answer that no earlier one is waiting before."""
        self._flush_due = False
        queue = self.queue
        if not queue or queue[0].answer is None or self._transport.is_closing():
            return
        parts: list[bytes] = []
        request_log = self._request_log
        # The first one has waited longest.
        seconds = self._loop.time() - queue[0].begun_at
        if seconds >= self._slow_seconds and request_log is not None:
            request_log.slow(queue[0].answer.status, seconds, _told(queue[0]))
        while queue and (answer := queue[0].answer) is not None:
            slot = queue.popleft()
            request_id = slot.request_id
            if answer.status >= _BAD_REQUEST:
                request_id = slot.request_id = request_id or make_request_id()
                if request_log is not None:
                    request_log.refused(answer.status, answer.body, _told(slot))
            more = b"" if request_id is None else b"x-request-id: %b\r\n" % request_id
            if self.closes_behind and not queue and self._is_last():
                more += b"connection: close\r\n"
            parts.append(b"%b%b\r\n%b" % (answer.head, more, answer.body))
        self._transport.write(b"".join(parts))
        if not queue:
            self._on_empty()


def _told(slot: Slot) -> Request:
    """What is logged of the request behind a slot."""
    head = slot.head
    if head is None:
        return UNREAD._replace(request_id=slot.request_id)
    return Request(head.method, head.path, slot.request_id, trace_id(head.trace or b""))
