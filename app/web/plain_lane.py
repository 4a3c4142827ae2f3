"""The plain way of a request, through parser, task and application: uvicorn's, with bounds and an order.

uvicorn's own protocol waits for its clients for ever and takes heads of any size. Here everything has a
bound (`limits.py`), and whatever is refused gets its answer in its turn, behind those of the requests
before it. A refusal is the last answer of its connection.
"""

import asyncio
import contextlib
import re
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.web.answers import Answer, Problem
from app.web.bodies import Bodies, Share
from app.web.counts import OTHER, UNKNOWN, Counts, Statuses
from app.web.limits import (
    MALFORMED,
    TIMED_OUT,
    UNENDED_BYTES_MAX,
    Awaited,
    Departure,
    Patience,
    check_body,
    check_head,
    check_headers,
    word_unended,
)
from app.web.request_log import Request, RequestLog
from app.web.room import Room
from app.web.seams import (
    BehindUpgrade,
    GuardedFlow,
    JoinedWrites,
    close_unless_continued,
    head_of_body,
)
from app.web.slots import Slots
from app.web.trace import trace_of

_VERSIONS: Final = ("1.1", "1.0")
# What is refused for its body was on its way to be a transaction; what never got so far was none.
_OF_THE_BODY: Final = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.SERVICE_UNAVAILABLE)

# Behind "HTTP/1.1 ".
_STATUS_AT: Final = 9
_REFUSAL_FROM: Final = ord("4")
_REQUEST_ID: Final = re.compile(rb"\r\nx-request-id: ([!-~]{1,64})")


class PlainLane(HttpToolsProtocol):
    """One connection, each request of which takes the plain way.

    `room` is None where none runs out, `bodies` where there are no other connections.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        room: Room | None = None,
        bodies: Bodies | None = None,
        request_log: RequestLog | None = None,
        counts: Counts | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._room = room
        self._request_log = request_log
        self._counts = counts or Counts()
        self._share = Share(bodies or Bodies())
        self._plain_requests = 0
        """Plain requests whose heads have come and whose answers have not left."""
        self._is_parsing = False
        self._parsed: RequestResponseCycle | None = None
        """The plain request the parser is in the middle of, once its head has come."""
        self._running: RequestResponseCycle | None = None
        """The plain request whose answer is being made."""
        self._begun_at = 0.0
        """When that was begun."""
        self._held: tuple[RequestResponseCycle, ASGI3Application] | None = None
        """The plain request that is to be begun when all slots before it are written."""
        self._has_head = False
        """Whether the head of the request that the parser is in the middle of has come."""
        self._refused_statuses: Statuses
        """Where the refusal is counted."""
        self._refusal: Answer | None = None
        """The last answer, once something was broken, too large or too late."""
        self._is_deaf = False
        """Whether what still comes is thrown away."""
        self._has_eof = False
        self._body_bytes = 0
        """How much of the parsed request's body has come."""
        self._unended_bytes = 0
        """How much has come since the parser last got on with a request."""
        self._has_got_on = False

    # The parser, and what it calls out.

    def _parse(self, data: bytes) -> None:
        received_bytes, self._has_got_on = len(data), False
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    # It ends behind the head of a request that offers an upgrade. None is made: a new
                    # parser is told how the body is framed, by a head that is not looked at.
                    self.parser = httptools.HttpRequestParser(BehindUpgrade(self))
                    data = head_of_body(self.scope["headers"]) + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.answer if isinstance(cause, Problem) else MALFORMED)
            return
        is_unended = self._is_parsing and not self._has_got_on
        self._unended_bytes = self._unended_bytes + received_bytes if is_unended else 0
        if self._unended_bytes > UNENDED_BYTES_MAX:
            self._refuse(word_unended(self.url))

    def on_message_begin(self) -> None:
        """Note that the parser is in the middle of a request."""
        self._is_parsing = self._has_got_on = True
        self._has_head = False
        self._patience.begin(Awaited.HEAD)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that a plain request is under way."""
        self._has_head = True
        body_bytes = check_head(self.url, self.parser.get_http_version(), self.headers)
        # Before anything of it is begun; it has its share once there is something to give it back for.
        self._share.check(body_bytes)
        super().on_headers_complete()
        # From here on, as what raises up there is no request that will be answered.
        self._has_got_on = True
        self._body_bytes = 0
        self._plain_requests += 1
        self._parsed = self.cycle
        self._share.reserve(self.cycle, body_bytes)
        self.headers = []  # Trailers are no headers.
        if self.expect_100_continue:
            close_unless_continued(self.cycle)
        self.cycle.transport = cast(asyncio.Transport, self._joined_writes)
        if self.scope["http_version"] not in _VERSIONS:
            raise httptools.HttpParserError("a version that is not spoken here")

    def on_body(self, body: bytes) -> None:
        """Bound a body, also one that nobody reads."""
        self._has_got_on = True
        self._body_bytes += len(body)
        check_body(self._body_bytes)
        if not self.cycle.response_complete:
            # What comes behind the answer is thrown away.
            self._share.reserve(self.cycle, self._body_bytes)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the parser is done with a request."""
        if self.parser.should_upgrade():
            return  # Only its head was read; its body follows.
        if self.headers:
            check_headers(self.headers)
        super().on_message_complete()
        if self._parsed is not None and self._parsed.response_complete:
            self._patience.since = self.loop.time()
        self._is_parsing = False
        self._parsed = None

    # Answers, in their order.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._slots.queue:
            self._held = (cycle, app)
        else:
            self._running = cycle
            self._begun_at = self.loop.time()
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on behind a plain answer that has left, as uvicorn would, with a patience of our own."""
        self.server_state.total_requests += 1
        self._plain_requests -= 1
        self._share.give_back(self._running)
        self._joined_writes.flush()
        if self._is_over():
            return
        if self._running is not self._parsed:
            self._patience.since = self.loop.time()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        self._go_on()
        if self._refusal is not None and not self._plain_requests:
            self._answer_refusal(self._refusal)

    def _note_answer(self, written: bytes) -> None:
        """Log an answer of the running request that is a refusal, or has taken long."""
        request_log, running = self._request_log, self._running
        if request_log is None or running is None:
            return
        seconds = self.loop.time() - self._begun_at
        if written[_STATUS_AT] < _REFUSAL_FROM and seconds < request_log.slow_seconds:
            return
        scope, status = running.scope, int(written[_STATUS_AT : _STATUS_AT + 3])
        head, _, body = written.partition(b"\r\n\r\n")
        found = _REQUEST_ID.search(head)
        request = Request(scope["method"], scope["path"], found and found[1], trace_of(scope["headers"]))
        if status >= HTTPStatus.BAD_REQUEST:
            request_log.refused(status, body, request)
        if seconds >= request_log.slow_seconds:
            request_log.slow(status, seconds, request)

    def _refuse(self, answer: Answer) -> None:
        """Answer what cannot be taken, in its turn, and close."""
        self._is_deaf = True
        self._refusal = answer
        broken = self._parsed
        if broken is None or not broken.response_started:
            self._count_refusal(answer)
        self._parsed = None
        if broken is not None:
            # Its body will never be whole, so it must not be waited for.
            self._share.give_back(broken)
            if broken.response_started:
                self._close()
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
            self._answer_refusal(answer)

    def _answer_refusal(self, answer: Answer) -> None:
        self._slots.closes_behind = True
        self._slots.add(None, self.loop.time(), None, self._refused_statuses)(answer)

    def _count_refusal(self, answer: Answer) -> None:
        """See to it that a refusal is counted, and the transaction that may have been in it."""
        method, path = OTHER, UNKNOWN
        if self._is_parsing and self._has_head:
            if self._parsed is not None:
                method, path = self.scope["method"], self.scope["path"]
            else:
                method = self.parser.get_method().decode("latin-1")
                with contextlib.suppress(httptools.HttpParserError):
                    path = unquote((httptools.parse_url(self.url).path or b"").decode("latin-1"))
            if answer.status in _OF_THE_BODY:
                self._counts.refuse(method, path, answer.status)
        self._refused_statuses = self._counts.at(method, path)

    def _all_answered(self) -> None:
        """Go on behind the last slot."""
        self._patience.since = self.loop.time()
        if self._held is not None:
            held, self._held = self._held, None
            self._start_asgi_task(*held)
            return
        self._go_on()
        if self._slots.closes_behind and not self._is_under_way:
            self._close()

    def _go_on(self) -> None:
        """Read on, where there is room to."""
        self.flow.resume_reading()

    @property
    def _is_receiving(self) -> bool:
        """Whether a request has begun to come and is not whole."""
        return self._is_parsing

    @property
    def _is_under_way(self) -> bool:
        """Whether a request that has come is still to be answered."""
        return bool(self._slots.queue or self._plain_requests)

    def _is_last(self) -> bool:
        """Whether nothing is to be answered behind the slots."""
        return self._held is None

    # The connection's life.

    # uvicorn narrows the argument that asyncio's protocols have.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, where there is room."""
        if self._room is not None and self._room.is_full(len(self.connections)):
            self._room.turn_away(transport)
            return
        super().connection_made(transport)
        self._counts.connections += 1
        self.flow = GuardedFlow(transport, lambda: self._holds_back)
        self._joined_writes = JoinedWrites(transport, self._is_over, self._close, self._note_answer)
        self._slots = Slots(self.loop, transport, self._is_last, self._all_answered, self._request_log)
        self._departure = Departure(transport)
        self._patience = Patience(self.loop, self.timeout_keep_alive, self._awaited, self._expire)
        self._patience.begin(Awaited.REQUEST)

    @property
    def has_enough_to_do(self) -> bool:
        """Whether no more requests should be begun for now."""
        return self.flow.write_paused or bool(self.pipeline)

    @property
    def _holds_back(self) -> bool:
        """Whether no more should be read for now."""
        return self.has_enough_to_do

    def _awaited(self) -> Awaited | None:
        """What the client is to do now; None where it waits for us."""
        if self._is_over():
            return Awaited.READING if self.transport.get_write_buffer_size() else Awaited.LEAVING
        if self.flow.write_paused:
            return Awaited.READING
        if self._is_deaf or not self._is_receiving:
            return None if self._is_under_way else Awaited.REQUEST
        is_unanswered = self._parsed is not None and not self._parsed.response_complete
        if self._slots.queue or self._plain_requests > is_unanswered:
            return None
        return Awaited.HEAD if self._is_parsing and self._parsed is None else Awaited.BODY

    def _expire(self, awaited: Awaited) -> None:
        """Wait no longer."""
        if awaited is Awaited.REQUEST:
            self._close()
        elif awaited is Awaited.READING:
            self.transport.abort()
        elif awaited is Awaited.LEAVING:
            self.transport.close()
        else:
            self._refuse(TIMED_OUT)

    # asyncio's may return a bool; uvicorn's says that it never does.
    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what has come whole, then close: the client sends no more, but it may still read."""
        self._has_eof = True
        if self._is_over():
            self.transport.close()
        elif self._is_receiving and self._refusal is None:
            self._refuse(MALFORMED)
        else:
            self.shutdown()
        return True

    def shutdown(self) -> None:
        """Answer what has come, then close; behind a refusal that is done anyway."""
        if self._refusal is not None:
            return
        self._slots.closes_behind = True
        if self._plain_requests:
            self.cycle.keep_alive = False
        elif not self._is_under_way:
            self._close()

    def _is_over(self) -> bool:
        """Whether nothing more is answered."""
        return self._departure.has_begun or self.transport.is_closing()

    def _close(self) -> None:
        """Close; a client that may still be sending is given the time to see its last answer."""
        self._is_deaf = True
        self._departure.begin(lingers=self._is_receiving and not self._has_eof)
        self._patience.begin(Awaited.LEAVING)
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the answers: there is no one to read them."""
        self._counts.connections -= 1
        self._patience.end()
        self._share.give_all_back()
        self._slots.queue.clear()
        gone = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in filter(None, (self._running, *gone)):
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Take no more from a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()
        self._patience.begin(Awaited.READING)

    def resume_writing(self) -> None:
        """Go on, now that it has read some."""
        super().resume_writing()
        self._go_on()
