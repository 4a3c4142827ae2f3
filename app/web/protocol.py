"""One connection: uvicorn's HTTP protocol, with the fast lane in front of it.

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
from collections import deque
from http import HTTPStatus
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.web.answers import Answer, Code, problem
from app.web.fast_lane import FastLane
from app.web.resource import CUT_SHORT, internal_error, make_request_id
from app.web.seams import BehindUpgrade, GuardedFlow, JoinedWrites, close_unless_continued

# A client that sends without reading is read no further once this many answers wait.
_SLOTS_MAX: Final = 256
# Fast requests of one connection that are taken before other connections have their turn.
_TURN_REQUESTS_MAX: Final = 16

_VERSIONS: Final = ("1.1", "1.0")
_BAD_REQUEST: Final = int(HTTPStatus.BAD_REQUEST)

_MALFORMED: Final = problem(
    HTTPStatus.BAD_REQUEST, Code.MALFORMED_REQUEST, "The request is not valid HTTP"
)


class _Slot:
    """The place of one answer among the answers of its connection; called with it."""

    __slots__ = ("_protocol", "answer", "request_id")

    def __init__(self, protocol: "Protocol", request_id: bytes | None) -> None:
        self._protocol = protocol
        self.request_id = request_id
        self.answer: Answer | None = None

    def __call__(self, answer: Answer) -> None:
        self.answer = answer
        self._protocol.answered()


class Protocol(HttpToolsProtocol):
    """One connection; `fast_lane` is None where everything takes the plain way."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        fast_lane: FastLane | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._fast_lane = fast_lane
        self._slots: deque[_Slot] = deque()
        self._unread = b""
        """What has come of a fast request whose body is not whole yet."""
        self._backlog = b""
        """What has come and must wait until there is room, or for the next turn."""
        self._is_taking = False
        self._flush_due = False
        self._closes_when_answered = False
        self._plain_requests = 0
        """Plain requests whose heads have come and whose answers have not left."""
        self._is_parsing = False
        self._parsed: RequestResponseCycle | None = None
        """The plain request the parser is in the middle of, once its head has come."""
        self._running: RequestResponseCycle | None = None
        """The plain request whose answer is being made."""
        self._held: tuple[RequestResponseCycle, ASGI3Application] | None = None
        self._is_malformed = False
        self._active_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    # Bytes come in.

    def data_received(self, data: bytes) -> None:
        """Take the fast requests at the front, and leave the rest to the parser."""
        if self._is_malformed or (self._closes_when_answered and not self._is_parsing):
            return
        if self._backlog:
            self._backlog += data
        else:
            self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        if self._fast_lane is not None and not self._plain_requests and not self._is_parsing:
            data = self._take(self._fast_lane, self._unread + data)
            if not data:
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._begin_behind_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self.send_400_response("")

    def _begin_behind_upgrade(self) -> bytes:
        """Go on behind the head of a request that offers an upgrade, without upgrading.

        The parser ends there. A new one is told how the body that follows is framed, by a head that is
        not looked at; that head.
        """
        framing = [
            b"%s: %s\r\n" % header
            for header in self.scope["headers"]
            if header[0] in (b"content-length", b"transfer-encoding")
        ]
        self.parser = httptools.HttpRequestParser(BehindUpgrade(self))
        return b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"])

    def _take(self, fast_lane: FastLane, data: bytes) -> bytes:
        """Handle every whole request at the front that the fast lane knows; what is behind them."""
        start, self._unread, slots = 0, b"", self._slots
        slots_max = min(len(slots) + _TURN_REQUESTS_MAX, _SLOTS_MAX)
        self._is_taking = True
        while start < len(data):
            if len(slots) >= slots_max:
                self._backlog, start = data[start:], len(data)
                break
            end = data.find(b"\r\n\r\n", start) + 4
            head = fast_lane.head(data[start:end]) if end > start + 3 else None
            if head is None:
                break
            behind = end + head.body_bytes
            if behind > len(data):
                self._unread, start = data[start:], len(data)
                break
            caller = head.caller or fast_lane.caller(head)
            if caller is None:
                break
            slot = _Slot(self, head.request_id)
            slots.append(slot)
            try:
                head.handler(head, data[end:behind], caller, slot)
            except Exception:
                slot.request_id = slot.request_id or make_request_id()
                slot(internal_error(slot.request_id))
            start = behind
        self._is_taking = False
        if slots and slots[0].answer is not None:
            self._flush()
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
        if self._backlog and not self.has_enough_to_do and not self.transport.is_closing():
            backlog, self._backlog = self._backlog, b""
            self._take_in(backlog)
            self.flow.resume_reading()

    # Answers go out.

    def answered(self) -> None:
        """Note that a slot has its answer. Several of one turn of the loop leave in one write."""
        if self._is_taking:
            return
        if len(self._slots) == 1:
            self._flush()
        elif not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write every answer that no earlier one is waiting before."""
        self._flush_due = False
        slots = self._slots
        if not slots or slots[0].answer is None or self.transport.is_closing():
            return
        parts: list[bytes] = []
        while slots and (answer := slots[0].answer) is not None:
            request_id = slots.popleft().request_id
            if request_id is None and answer.status >= _BAD_REQUEST:
                request_id = make_request_id()
            more = b"" if request_id is None else b"x-request-id: %b\r\n" % request_id
            if self._closes_when_answered and self._is_last_slot:
                more += b"connection: close\r\n"
            parts.append(b"%b%b\r\n%b" % (answer.head, more, answer.body))
        self.transport.write(b"".join(parts))
        if not slots:
            self._all_answered()

    @property
    def _is_last_slot(self) -> bool:
        """Whether nothing comes behind the slot that was just taken out."""
        return not self._slots and self._held is None and not self._backlog

    def _all_answered(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._start_asgi_task(*held)
            return
        self._note_activity()
        self._go_on()
        if self._closes_when_answered and not self._is_under_way:
            self.transport.close()

    @property
    def _is_under_way(self) -> bool:
        """Whether a request that has come whole is still to be answered."""
        return bool(self._slots or self._plain_requests or self._backlog)

    # The plain way, as far as it must know of the slots.

    def on_message_begin(self) -> None:
        """Note that the parser is in the middle of a request."""
        self._is_parsing = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that a plain request is under way."""
        super().on_headers_complete()
        # From here on, as what raises up there is no request that will be answered.
        self._plain_requests += 1
        self._parsed = self.cycle
        self.headers = []  # Trailers are no headers.
        if self.expect_100_continue:
            close_unless_continued(self.cycle)
        self.cycle.transport = cast(asyncio.Transport, self._joined_writes)
        if self.scope["http_version"] not in _VERSIONS:
            raise httptools.HttpParserError("a version that is not spoken here")

    def on_message_complete(self) -> None:
        """Note that the parser is done with a request."""
        if self.parser.should_upgrade():
            return  # Only its head was read; its body follows.
        self._is_parsing = False
        self._parsed = None
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._slots:
            self._held = (cycle, app)
        else:
            self._running = cycle
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on behind a plain answer that has left, as uvicorn would, with our own idle timer."""
        self.server_state.total_requests += 1
        self._plain_requests -= 1
        self._joined_writes.flush()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._note_activity()
        self._go_on()
        if self._is_malformed and not self._plain_requests:
            self._refuse()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP request, in their turn, and close."""
        self._is_malformed = True
        broken, self._parsed = self._parsed, None
        if broken is not None:
            # Its body will never be whole, so it must not be waited for.
            if broken.response_started:
                self.transport.close()
                return
            self._plain_requests -= 1
            if self._held is not None and self._held[0] is broken:
                self._held = None
            elif self.pipeline and self.pipeline[0][0] is broken:
                self.pipeline.popleft()
            else:
                broken.disconnected = True
                broken.message_event.set()
        if not self._plain_requests:
            self._refuse()

    def _refuse(self) -> None:
        self._closes_when_answered = True
        self._slots.append(_Slot(self, None))
        self._slots[-1](_MALFORMED)

    # The connection's life.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; uvicorn narrows the argument that asyncio's protocols have."""
        super().connection_made(transport)
        self.flow = GuardedFlow(transport, lambda: self.has_enough_to_do or bool(self._backlog))
        self._joined_writes = JoinedWrites(transport)

    @property
    def has_enough_to_do(self) -> bool:
        """Whether no more requests should be read for now."""
        return self.flow.write_paused or bool(self.pipeline) or len(self._slots) >= _SLOTS_MAX

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what has come whole, then close: the client sends no more, but it may still read."""
        if self._is_parsing or self._unread:
            self.send_400_response("")
        else:
            self._finish()
        return True

    def _finish(self) -> None:
        """Answer what has come, then close."""
        self._closes_when_answered = True
        if self._plain_requests:
            self.cycle.keep_alive = False
        elif not self._is_under_way:
            self.transport.close()

    def cut_short(self) -> None:
        """Answer what the ledger has not decided when there is no more time, and close."""
        self._closes_when_answered = True
        self._backlog = b""
        if self._held is not None:
            self._held = None
            self._plain_requests -= 1
        for slot in self._slots:
            slot.answer = slot.answer or CUT_SHORT
        self._flush()

    def shutdown(self) -> None:
        """Answer what has come, then close."""
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the answers: there is no one to read them."""
        self._slots.clear()
        self._backlog = b""
        gone = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in filter(None, (self._running, *gone)):
            cycle.disconnected = True
            cycle.message_event.set()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Take no more from a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Go on, now that it has read some."""
        super().resume_writing()
        self._go_on()

    def _note_activity(self) -> None:
        """One timer a connection, set anew when it rings: cheaper than one a request."""
        self._active_at = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._check_idle)

    def _check_idle(self) -> None:
        self._idle_timer = None
        if self.transport.is_closing():
            return
        is_busy = self._is_under_way or self._is_parsing or self._unread
        rest_seconds = self._active_at + self.timeout_keep_alive - self.loop.time()
        if not is_busy and rest_seconds <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(max(rest_seconds, 1.0), self._check_idle)
