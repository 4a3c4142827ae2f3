"""A TCP proxy that cuts a connection at a chosen moment, as a network may."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from urllib.parse import urlsplit

COPY_DONE = b"c\0\0\0\4"


class Fault(Enum):
    """What becomes of the message that a proxy was armed for."""

    DROP = "it never arrives, and the server does not learn that its client is gone"
    DROP_ANSWER = "it arrives, and the answer is lost"
    DELAY = "it arrives when its client has been gone for a while"


class FaultProxy:
    """Passes everything on, until a message with a chosen mark comes from the client."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server
        self._armed: tuple[Fault, bytes, int] | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.struck = 0
        self.delivered = asyncio.Event()
        """What is delayed arrives when this is set."""

    @property
    def url(self) -> str:
        """The database's URL through this proxy."""
        port = self._server.sockets[0].getsockname()[1]
        user = self._target.username
        return self._target._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    def arm(self, fault: Fault, mark: bytes = COPY_DONE, number: int = 1) -> None:
        """Strike once, at the n-th message that ends with the mark."""
        self._armed = fault, mark, number

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.port is not None
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target.port)
        except ConnectionError:
            writer.transport.abort()  # As if nobody listened here either.
            return
        self._writers += [writer, there[1]]
        back = asyncio.create_task(self._pass_back(there[0], writer))
        self._tasks.append(back)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**16):
                if self._strikes(data):
                    assert self._armed is not None
                    fault, self._armed = self._armed[0], None
                    back.cancel()
                    await asyncio.wait((back,))
                    if fault is Fault.DROP_ANSWER:
                        there[1].write(data)
                        await there[0].read(1)
                    self.struck += 1
                    writer.transport.abort()
                    if fault is Fault.DELAY:
                        await self.delivered.wait()
                        there[1].write(data)
                        there[1].close()
                    return
                there[1].write(data)
            there[1].close()

    def _strikes(self, data: bytes) -> bool:
        if self._armed is None or not data.endswith(self._armed[1]):
            return False
        fault, mark, number = self._armed
        self._armed = fault, mark, number - 1
        return number == 1

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**16):
                writer.write(data)
        writer.close()


@asynccontextmanager
async def fault_proxy(url: str) -> AsyncIterator[FaultProxy]:
    """A proxy in front of a database."""
    proxy = FaultProxy(url)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
