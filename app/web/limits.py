"""The bounds of a connection: how large a request may be, and how long its client may take.

A bound of size is judged where a head, a body or its trailers end, so that it does not matter where the
bytes were cut; what never comes to such an end is stopped a little later. A bound of time is absolute:
a byte now and then does not renew it. It runs only while it is the client's turn: a request that waits
for the disk, or is not read on because others are before it, is not its client's fault.
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from http import HTTPStatus
from itertools import chain
from typing import Final

from app.web.answers import Answer, Code, Problem, problem
from app.web.batch import BATCH_BYTES_MAX
from app.web.body import length_bytes

HEADERS_MAX: Final = 100
HEADERS_BYTES_MAX: Final = 32_768
TARGET_BYTES_MAX: Final = 8_192
# A head or trailers without an end, with the spaces between their words: the one bound that depends on
# where the bytes are cut, as what the loop reads at once, up to 256 KiB, comes on top.
UNENDED_BYTES_MAX: Final = 65_536
# What the widest door takes; each door has its own bound besides.
REQUEST_BODY_BYTES_MAX: Final = BATCH_BYTES_MAX

_HEADER_OVERHEAD_BYTES: Final = len(b": \r\n")

# What a client may still send behind its last answer. More than a socket holds on either side, so that
# whoever has sent without reading gets to its answer.
_LINGER_BYTES_MAX: Final = 8 * 2**20

# A connection that waits for us is looked at again this often.
_LOOK_SECONDS: Final = 1.0
# The loop's clock counts milliseconds.
_TICK_SECONDS: Final = 0.001

MALFORMED: Final = problem(
    HTTPStatus.BAD_REQUEST, Code.MALFORMED_REQUEST, "The request is not valid HTTP"
)
TIMED_OUT: Final = problem(
    HTTPStatus.REQUEST_TIMEOUT, Code.REQUEST_TIMEOUT, "The request did not come whole in time"
)
_HEADERS_TOO_LARGE: Final = problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    Code.HEADERS_TOO_LARGE,
    f"There are more than {HEADERS_MAX} headers, or more than {HEADERS_BYTES_MAX} bytes of them",
)
_TARGET_TOO_LONG: Final = problem(
    HTTPStatus.REQUEST_URI_TOO_LONG,
    Code.TARGET_TOO_LONG,
    f"The request's target is longer than {TARGET_BYTES_MAX} bytes",
)
_BODY_TOO_LARGE: Final = problem(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.BODY_TOO_LARGE,
    f"The body is larger than {REQUEST_BODY_BYTES_MAX} bytes",
)


def check_head(target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """The bytes of the body that a head speaks of, 0 where it does not say. Raises Problem.

    That is where the head or the body is too large, and where not everyone on the way might read the
    head alike (RFC 9112, sections 3.2 and 6.1).
    """
    if len(target) > TARGET_BYTES_MAX:
        raise Problem(_TARGET_TOO_LONG)
    check_headers(headers)
    hosts, body_bytes, is_old = 0, 0, version == "1.0"
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            body_bytes = length_bytes(value)
        elif name == b"transfer-encoding" and is_old:
            raise Problem(MALFORMED)
    if hosts != 1 and not (is_old and hosts == 0):
        raise Problem(MALFORMED)
    check_body(body_bytes)
    return body_bytes


def check_headers(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Whether there may be so many headers, or trailers, and so large. Raises Problem."""
    size_bytes = sum(map(len, chain.from_iterable(headers))) + _HEADER_OVERHEAD_BYTES * len(headers)
    if len(headers) > HEADERS_MAX or size_bytes > HEADERS_BYTES_MAX:
        raise Problem(_HEADERS_TOO_LARGE)


def check_body(received_bytes: int) -> None:
    """Whether any door takes a body that is so long already. Raises Problem."""
    if received_bytes > REQUEST_BODY_BYTES_MAX:
        raise Problem(_BODY_TOO_LARGE)


def word_unended(target: bytes) -> Answer:
    """The answer to a head or trailers that do not end; the target is as far as it has come."""
    return _TARGET_TOO_LONG if len(target) > TARGET_BYTES_MAX else _HEADERS_TOO_LARGE


class Awaited(Enum):
    """What a connection waits for its client to do."""

    REQUEST = "begin a request"
    HEAD = "send a head to its end"
    BODY = "send a request to its end"
    READING = "take what it was answered"
    LEAVING = "end its side too"


_SECONDS: Final = {
    Awaited.HEAD: 5.0,
    Awaited.BODY: 15.0,
    Awaited.READING: 30.0,
    Awaited.LEAVING: 1.0,
}


class Patience:
    """How long a connection waits for its client, with one timer that is set anew when it rings.

    `awaited` says what it waits for when the timer rings, None where the client waits for us; `expire`
    is called when that has taken too long.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keep_alive_seconds: float,
        awaited: Callable[[], Awaited | None],
        expire: Callable[[Awaited], None],
    ) -> None:
        self._loop = loop
        self._seconds = {**_SECONDS, Awaited.REQUEST: keep_alive_seconds}
        self._awaited = awaited
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self.since = 0.0
        """When it became the client's turn: set by whoever answers, which costs no call."""

    def begin(self, awaited: Awaited) -> None:
        """Note that the client is to do this, from now on."""
        self.since = self._loop.time()
        self._ring_by(self.since + self._seconds[awaited])

    def end(self) -> None:
        """Wait no more: the client has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring_by(self, rings_at: float) -> None:
        if self._timer is not None:
            if self._rings_at <= rings_at:
                return
            self._timer.cancel()
        self._rings_at = rings_at
        self._timer = self._loop.call_later(rings_at - self._loop.time(), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now, awaited = self._loop.time(), self._awaited()
        if awaited is None:
            self._ring_by(now + _LOOK_SECONDS)
            return
        due_at = self.since + self._seconds[awaited]
        if now >= due_at:
            self._expire(awaited)
        else:
            self._ring_by(max(due_at, now + _TICK_SECONDS))


class Departure:
    """The end of a connection.

    A socket that is closed while its client is still sending answers with a reset, which may wipe out
    the last answer before it was read. A lingering one says that nothing more will come, and throws
    away what the client still sends, until it has seen that, or has had time and room enough to.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._room_bytes = _LINGER_BYTES_MAX
        self.has_begun = False

    def begin(self, *, lingers: bool) -> None:
        """Close, now or when the client has had its time."""
        if self.has_begun:
            return
        self.has_begun = True
        if lingers and not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def discard(self, data: bytes) -> None:
        """Throw away what comes too late."""
        if self.has_begun:
            self._room_bytes -= len(data)
            if self._room_bytes < 0:
                self._transport.close()
