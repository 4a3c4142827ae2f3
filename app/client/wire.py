"""A small HTTP/1.1 client, fast enough for measuring: one kept connection, one request in flight.

A request is written once. If its answer is lost (reset, end of stream, silence) the caller is told
and nothing is sent again, because the server may have done the work. Only connecting, which sends
nothing, is tried anew.

Deliberately missing: redirects, proxies, pipelining, and answers that only the end of the
connection delimits (they count as lost).
"""

import asyncio
import ssl
from typing import Final, Self, cast
from urllib.parse import urlsplit

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

ANSWER_SECONDS: Final = 30.0
# A batch of 10 000 items with all that can be wrong with each has an answer of some 10 MB.
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024

# Servers close an idle connection after some seconds (Millrace after 5, uvicorn too). A request
# that crosses such a close on the wire is lost, so an idle connection is replaced well before.
IDLE_SECONDS_MAX: Final = 2.0

_PORTS: Final = {"http": 80, "https": 443}

_CONNECT_ATTEMPT_SECONDS: Final = 5.0
_CONNECT_PAUSE_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.5)


class AddressError(ValueError):
    """The text is not the address of an HTTP service; the message says why."""


class NotConnectedError(Exception):
    """No connection could be made; nothing was sent."""


class LostAnswerError(Exception):
    """The request was sent, wholly or in part, and no whole answer came back."""


class Address(msgspec.Struct, frozen=True):
    """Where a service listens, and the path all its routes lie under ("" at the root)."""

    host: str
    port: int
    base_path: str
    host_header: str
    is_tls: bool = False


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Status and body of a response, and what it says of when to come again."""

    status: int
    body: bytes
    retry_after: bytes | None = None


def parse_address(url: str) -> Address:
    """Read `http://host[:port][/path]`, or `https://`. Raises AddressError."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise AddressError(f"{url!r}: an address holds visible ASCII characters only")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise AddressError(f"{url!r}: {problem}") from None
    if parts.scheme not in _PORTS or not host:
        raise AddressError(f"{url!r}: an address looks like http://127.0.0.1:8000")
    if port == 0:
        raise AddressError(f"{url!r}: port 0 cannot be connected to")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise AddressError(f"{url!r}: user, query and fragment have no place in the address")
    port = port or _PORTS[parts.scheme]
    return Address(host, port, parts.path.rstrip("/"), parts.netloc, parts.scheme == "https")


class _Connection(asyncio.Protocol):
    """One TCP connection: bytes in, answers out, for at most one waiting request."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._retry_after: bytes | None = None
        self._parser = HttpResponseParser(self)

    def send(self, request: bytes, waiting: asyncio.Future[Answer]) -> None:
        assert self._transport is not None
        assert self._waiting is None
        self._waiting = waiting
        self._transport.write(request)

    def lose(self, reason: str) -> None:
        """Give the connection up; whoever waits on it learns why."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(LostAnswerError(reason))

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # A uvloop transport is no subclass.
        self.usable = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.lose("answer could not be read as HTTP")

    def connection_lost(self, problem: Exception | None) -> None:
        self.lose("connection reset" if problem else "connection closed before the answer")

    def on_message_begin(self) -> None:
        self._body.clear()
        self._body_bytes = 0
        self._retry_after = None

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes > ANSWER_BYTES_MAX:
            self.lose("answer too long")
        else:
            self._body.append(part)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # An interim answer; the real one follows.
        waiting, self._waiting = self._waiting, None
        # An answer nobody asked for (a 408 before closing, say) must not meet the next request.
        if waiting is None or not self._parser.should_keep_alive():
            self.close()
        if waiting is not None and not waiting.done():
            waiting.set_result(Answer(status, b"".join(self._body), self._retry_after))


class _HeedingConnection(_Connection):
    """Looks at headers too, which is 3 % of the time that a request takes its client."""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value


class Client:
    """Posts and gets over one connection, one request at a time, each within a time of its own."""

    def __init__(
        self,
        address: Address,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        connect_seconds: float = 0.0,
        headers: bytes = b"",
        heeds_retry_after: bool = False,
    ) -> None:
        """`connect_seconds`: how long connecting is tried again; 0 is a single attempt.

        `headers`: lines that go out with every request, each with its end. `heeds_retry_after`: whether
        answers say when to come again, where the service does.
        """
        self._address = address
        self._answer_seconds = answer_seconds
        self._connect_seconds = connect_seconds
        self._common = b"Host: %b\r\n%b" % (address.host_header.encode(), headers)
        self._kind = _HeedingConnection if heeds_retry_after else _Connection
        self._tls = ssl.create_default_context() if address.is_tls else None
        self._loop = asyncio.get_running_loop()
        self._connection: _Connection | None = None
        self._idle_since = 0.0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connected(self) -> bool:
        """Whether the next request goes out on an open connection that is safe to use."""
        connection = self._connection
        return (
            connection is not None
            and connection.usable
            and self._loop.time() - self._idle_since < IDLE_SECONDS_MAX
        )

    async def connect(self) -> None:
        """Open a fresh connection, or raise NotConnectedError."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        give_up = self._loop.time() + self._connect_seconds
        attempt = 0
        while True:
            try:
                self._connection = await self._open()
            except (OSError, UnicodeError) as problem:
                pause = _CONNECT_PAUSE_SECONDS[min(attempt, len(_CONNECT_PAUSE_SECONDS) - 1)]
                if self._loop.time() + pause > give_up:
                    raise NotConnectedError(_plain(problem)) from None
                await asyncio.sleep(pause)
                attempt += 1
            else:
                self._idle_since = self._loop.time()
                return

    async def _open(self) -> _Connection:
        async with asyncio.timeout(_CONNECT_ATTEMPT_SECONDS):
            _, connection = await self._loop.create_connection(
                self._kind, self._address.host, self._address.port, ssl=self._tls
            )
        return connection

    async def get(self, path: str) -> Answer:
        """Get one path, query included."""
        return await self._request(
            b"GET %b HTTP/1.1\r\n%bAccept: application/json\r\n\r\n" % (self._full(path), self._common)
        )

    async def post(self, path: str, body: bytes, *, key: bytes | None = None) -> Answer:
        """Post one JSON body; under an idempotency key, it may be posted again."""
        keyed = b"" if key is None else b"Idempotency-Key: %b\r\n" % key
        return await self._request(
            b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\n"
            b"%bContent-Length: %d\r\n\r\n%b" % (self._full(path), self._common, keyed, len(body), body)
        )

    async def delete(self, path: str) -> Answer:
        """Delete what is at one path."""
        return await self._request(
            b"DELETE %b HTTP/1.1\r\n%bAccept: application/json\r\n\r\n"
            % (self._full(path), self._common)
        )

    def _full(self, path: str) -> bytes:
        return (self._address.base_path + path).encode()

    async def _request(self, request: bytes) -> Answer:
        if not self.connected:
            await self.connect()
        connection = self._connection
        assert connection is not None
        assert not self._in_flight
        self._watch_until(self._loop.time() + self._answer_seconds)
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        self._in_flight = True
        connection.send(request, waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            connection.lose("cancelled")  # Its answer must not meet the next request.
            raise
        finally:
            self._in_flight = False
            self._idle_since = self._loop.time()

    def _watch_until(self, deadline: float) -> None:
        # One timer that looks at the newest deadline when it fires: setting and cancelling one for
        # every request would cost more than the rest of the request's bookkeeping.
        self._deadline = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._watch)

    def _watch(self) -> None:
        self._timer = None
        if not self._in_flight or self._connection is None:
            return
        if self._loop.time() >= self._deadline:
            self._connection.lose(f"no answer within {self._answer_seconds:g} s")
        else:
            self._timer = self._loop.call_at(self._deadline, self._watch)


def _plain(problem: Exception) -> str:
    """The reason of a failed connection, without the address the caller names anyway."""
    if isinstance(problem, ConnectionRefusedError):
        return "connection refused"
    if isinstance(problem, TimeoutError):
        return "connecting took too long"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return str(problem) or type(problem).__name__
