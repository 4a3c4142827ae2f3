"""HTTP on a raw socket: requests as ready bytes, answers found by their length.

A measuring client must cost less than what it measures, so there is no loop, no parser and no
object a request here. Deliberately missing: whatever Millrace never sends, chunked answers first.
"""

import re
import socket
from typing import Final, Self

TIMEOUT_SECONDS: Final = 30.0
RECEIVE_BYTES: Final = 65_536

Address = tuple[str, int]

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HOST: Final = b"Host: 127.0.0.1\r\n"


class UnexpectedAnswerError(Exception):
    """The service answered something that makes a measurement worthless."""


def get_request(path: str) -> bytes:
    """The bytes of a GET."""
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), _HOST)


def post_request(path: str, body: bytes) -> bytes:
    """The bytes of a POST of JSON."""
    return b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(),
        _HOST,
        len(body),
        body,
    )


def answer_bytes(data: bytes) -> int | None:
    """How long the first answer in `data` is; None while its head is incomplete."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    length = _LENGTH.search(data, 0, head)
    return head + 4 + (int(length[1]) if length else 0)


def status(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer[9:12])


def body(answer: bytes) -> bytes:
    """The body of an answer."""
    return answer[answer.index(b"\r\n\r\n") + 4 :]


def expect(answer: bytes, wanted: int) -> bytes:
    """The body of an answer of that status. Raises UnexpectedAnswerError."""
    if status(answer) != wanted:
        raise UnexpectedAnswerError(f"answered {status(answer)}, not {wanted}: {body(answer)!r}")
    return body(answer)


class Connection:
    """One kept connection that is waited on."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, request: bytes) -> bytes:
        """Send one request and wait for its answer."""
        self._socket.sendall(request)
        return self.receive()

    def send(self, requests: bytes) -> None:
        """Send without waiting; as many answers must be received."""
        self._socket.sendall(requests)

    def receive(self) -> bytes:
        """The next answer."""
        data = self._received
        while (length := answer_bytes(data)) is None or len(data) < length:
            more = self._socket.recv(RECEIVE_BYTES)
            if not more:
                raise UnexpectedAnswerError("the connection was closed before the answer")
            data += more
        self._received = data[length:]
        return data[:length]
