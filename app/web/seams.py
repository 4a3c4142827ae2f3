"""The places where the protocol is sewn to uvicorn's own: what uvicorn calls, doing a little else."""

import asyncio
from collections.abc import Callable, Iterable

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


def head_of_body(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head that frames the body behind it as these headers do."""
    framing = [
        b"%s: %s\r\n" % header
        for header in headers
        if header[0] in (b"content-length", b"transfer-encoding")
    ]
    return b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"])


class BehindUpgrade:
    """Hands on to the connection all that the parser finds, save the first head."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._is_first_head = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        """A request begins."""
        if not self._is_first_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        if not self._is_first_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        if not self._is_first_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is whole; from here on all is handed on."""
        if not self._is_first_head:
            self._protocol.on_headers_complete()
        self._is_first_head = False


class JoinedWrites:
    """The transport as a plain request sees it: the head of an answer waits for its body.

    uvicorn writes them one after the other, and each write is a system call. `on_head` is called with
    what leaves together.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        is_closing: Callable[[], bool],
        close: Callable[[], None],
        on_head: Callable[[bytes], object],
    ) -> None:
        self._transport = transport
        self._close = close
        self._on_head = on_head
        self._head = b""
        self.is_closing = is_closing

    def write(self, data: bytes) -> None:
        """Write, or keep a head until its body comes. 100 is no answer yet, so it has none."""
        if self._head:
            self._head, data = b"", self._head + data
            self._on_head(data)
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Write a head that no body has followed: that of an answer to HEAD."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close behind what is kept."""
        self.flush()
        self._close()


class GuardedFlow(FlowControl):
    """Reads on only when the connection has not more to answer already than it should."""

    def __init__(self, transport: asyncio.Transport, has_enough_to_do: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._has_enough_to_do = has_enough_to_do

    def resume_reading(self) -> None:
        """Read on, unless there is enough to do."""
        if self.read_paused and not self._has_enough_to_do():
            super().resume_reading()


def close_unless_continued(cycle: RequestResponseCycle) -> None:
    """Close behind an answer to `Expect: 100-continue` that comes before the client was told to go on.

    Whether it sends the body after all is up to the client (RFC 9110, section 10.1.1): what came next on
    the connection could be either.
    """
    send = cycle.send

    async def send_first(message: ASGISendEvent) -> None:
        if cycle.waiting_for_100_continue:
            cycle.keep_alive = False
        await send(message)

    cycle.send = send_first  # type: ignore[method-assign]  # of this one cycle alone
