"""One connection: the fast lane in front, and behind it the plain one.

Bytes of a request that the fast lane knows never reach uvicorn's parser; any others take the plain
way, through parser, task and application. Answers leave in the order of their requests, whichever
lane makes them and whenever they are ready:

- A fast request is taken only while no plain one is under way, and has its slot in a queue from the
  moment it is taken. Slots are written from the front.
- A plain request that comes while slots are waiting is held until the last of them is written.
- A turn takes a bounded number of fast requests; what has come behind them waits for the next turn, so
  that one connection, however much it sends at once, does not keep the loop from the others.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from app.web.bodies import Bodies
from app.web.counts import Counts
from app.web.fast_lane import FastLane
from app.web.limits import Awaited
from app.web.plain_lane import PlainLane
from app.web.request_log import RequestLog
from app.web.resource import CUT_SHORT, internal_error, make_request_id
from app.web.room import Room
from app.web.slots import Slot
from app.web.trace import trace_id

# A client that sends without reading is read no further once this many answers wait.
_SLOTS_MAX: Final = 256
# Fast requests of one connection that are taken before other connections have their turn.
_TURN_REQUESTS_MAX: Final = 16


class Protocol(PlainLane):
    """One connection; `fast_lane` is None where everything takes the plain way."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        fast_lane: FastLane | None = None,
        room: Room | None = None,
        bodies: Bodies | None = None,
        request_log: RequestLog | None = None,
        counts: Counts | None = None,
    ) -> None:
        super().__init__(
            config,
            server_state,
            app_state,
            _loop,
            room=room,
            bodies=bodies,
            request_log=request_log,
            counts=counts,
        )
        self._fast_lane = fast_lane
        self._unread = b""
        """What has come of a fast request whose body is not whole yet."""
        self._backlog = b""
        """What has come and must wait until there is room, or for the next turn."""

    # Bytes come in.

    def data_received(self, data: bytes) -> None:
        """Take the fast requests at the front, and leave the rest to the parser."""
        if self._is_deaf or (self._slots.closes_behind and not self._is_parsing):
            self._departure.discard(data)
        elif self._backlog:
            self._backlog += data
        else:
            self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        if self._fast_lane is not None and not self._plain_requests and not self._is_parsing:
            data = self._take(self._fast_lane, data)
            if not data:
                return
        self._parse(data)

    def _take(self, fast_lane: FastLane, data: bytes) -> bytes:
        """Handle every whole request at the front that the fast lane knows; what is behind them."""
        unread, self._unread = self._unread, b""
        if unread:
            data = unread + data
        start, slots = 0, self._slots
        queue = slots.queue
        slots_max = min(len(queue) + _TURN_REQUESTS_MAX, _SLOTS_MAX)
        slots.is_filling = True
        now = self.loop.time()
        while start < len(data):
            if len(queue) >= slots_max:
                self._backlog, start = data[start:], len(data)
                break
            end = data.find(b"\r\n\r\n", start) + 4
            head = fast_lane.head(data[start:end]) if end > start + 3 else None
            if head is None:
                break
            behind = end + head.body_bytes
            if behind > len(data):
                if not unread:
                    self._patience.begin(Awaited.BODY)
                self._unread, start = data[start:], len(data)
                break
            caller = head.caller or fast_lane.caller(head)
            if caller is None:
                break
            slot = Slot(slots, head.request_id, now, head, head.statuses)
            queue.append(slot)
            try:
                head.handler(head, data[end:behind], caller, slot)
            except Exception:
                slot.request_id = slot.request_id or make_request_id()
                slot(internal_error(slot.request_id, trace_id(head.trace or b"")))
                if head.is_post:
                    self._counts.refuse_transaction(HTTPStatus.INTERNAL_SERVER_ERROR)
            start = behind
        slots.is_filling = False
        if queue and queue[0].answer is not None:
            slots.flush()
        if self._backlog:
            self.flow.pause_reading()
            self._go_on()
        return data[start:]

    def _go_on(self) -> None:
        """Take what was left for later, in a turn of its own; where there is none, read on."""
        if self._backlog:
            self.loop.call_soon(self._take_backlog)
        else:
            self.flow.resume_reading()

    def _take_backlog(self) -> None:
        if self._backlog and not self.has_enough_to_do and not self._is_over():
            backlog, self._backlog = self._backlog, b""
            self._take_in(backlog)
            self.flow.resume_reading()

    # What the plain lane must know of the fast one.

    @property
    def has_enough_to_do(self) -> bool:
        """Whether no more requests should be begun for now."""
        return super().has_enough_to_do or len(self._slots.queue) >= _SLOTS_MAX

    @property
    def _holds_back(self) -> bool:
        return self.has_enough_to_do or bool(self._backlog)

    @property
    def _is_receiving(self) -> bool:
        return self._is_parsing or bool(self._unread)

    @property
    def _is_under_way(self) -> bool:
        return bool(self._slots.queue or self._plain_requests or self._backlog)

    def _is_last(self) -> bool:
        return self._held is None and not self._backlog

    def cut_short(self) -> None:
        """Answer what the ledger has not decided when there is no more time, and close."""
        self._slots.closes_behind = True
        self._backlog = b""
        if self._held is not None:
            self._held = None
            self._plain_requests -= 1
        for slot in self._slots.queue:
            slot.answer = slot.answer or CUT_SHORT
        self._slots.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has come: there is no one to answer."""
        self._backlog = b""
        super().connection_lost(exc)
