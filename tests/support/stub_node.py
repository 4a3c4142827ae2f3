"""What stands where a node of the service would, and does on purpose what a node does by mischance."""

import asyncio
from enum import Enum
from typing import NamedTuple, Self


class Does(Enum):
    """What becomes of a request that was read whole."""

    ANSWER = "answer"
    """It is answered 200."""
    CUT = "cut"
    """The connection is closed, and nobody knows what became of it."""
    STREAM = "stream"
    """It is answered by one event, and by another once `go_on` is set."""


class Taken(NamedTuple):
    """A request as it arrived; names of headers in lower case."""

    method: str
    headers: dict[str, str]


class StubNode:
    """A server of HTTP that keeps note of what it is asked."""

    def __init__(self, does: Does) -> None:
        self._does = does
        self.taken: list[Taken] = []
        self.go_on = asyncio.Event()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def place(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                request = _parse(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(int(request.headers.get("content-length", "0")))
                self.taken.append(request)
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The other side has closed.
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        if self._does is Does.CUT:
            writer.close()
        elif self._does is Does.ANSWER:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
            await self.go_on.wait()
            writer.write(b"data: 2\n\n")
            writer.close()


def _parse(head: bytes) -> Taken:
    line, *lines = head.decode().rstrip("\r\n").split("\r\n")
    pairs = (each.split(": ", 1) for each in lines)
    return Taken(line.split()[0], {name.lower(): value for name, value in pairs})
