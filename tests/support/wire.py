"""A connection driven byte by byte through the protocol class itself.

What arrives together, and when the loop turns, is where the test puts it and not where the kernel does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import httptools
import pytest
from uvicorn.server import ServerState

from app.core.idempotency import Record
from app.core.transaction import Row
from app.main import build_service
from app.server.serve import server_config
from app.settings import Settings, Switch
from app.store.base import MemoryStore
from app.web.bodies import BODIES_BYTES_MAX, Bodies
from app.web.protocol import Protocol
from app.web.room import Room
from tests.support.thread import Clock

NOW_MS = 1_767_323_045_678
WHOLE = b'{"amount":1,"timestamp":%d}' % NOW_MS
CHUNKED = b"POST /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"

both_lanes = pytest.mark.parametrize("lane", list(Switch))


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /transactions HTTP/1.1", b"host: x", *headers]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


def get(target: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % target


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self, *, can_end: bool = False) -> None:
        """`can_end`: whether it can end its own side while the other is still sending."""
        super().__init__()
        self.written = b""
        self._can_end = can_end
        self.is_paused = False
        self.is_ended = False
        self._is_closing = False
        self.unsent_bytes = 0
        self.protocol: asyncio.Protocol

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._is_closing, "written after the close"
        assert not self.is_ended, "written after the end"
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return self._can_end

    def write_eof(self) -> None:
        self.is_ended = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Answers:
    """Reads statuses and request ids out of what was written; 100 is no answer yet."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.request_ids: list[bytes | None] = []
        self._request_id: bytes | None = None
        self._parser: Any = httptools.HttpResponseParser(self)

    def read(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._request_id = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._request_id = value

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 100:
            self.statuses.append(status)
            self.request_ids.append(self._request_id)


def statuses(wire: Wire) -> list[int]:
    """Those of the answers that were written."""
    answers = Answers()
    answers.read(wire.written)
    return answers.statuses


def refused(wire: Wire, status: int, code: str) -> bool:
    """Whether it was answered with that alone, in the one form of errors, and closed."""
    assert statuses(wire) == [status]
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert head.count(b"connection: close") == 1
    assert b'"code":"%b"' % code.encode() in body
    return wire.is_closing()


class GatedStore(MemoryStore):
    """Commits when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        await self.gate.wait()
        return await super().append(rows, records)


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands until it is told to move."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Bench:
    """A connection to a service whose store waits to be let go on."""

    def __init__(
        self, connect: Callable[[], Protocol], state: ServerState, store: GatedStore, bodies: Bodies
    ) -> None:
        self._connect = connect
        self.protocol = self._connect()
        self.wire = self._join(self.protocol, Wire())
        self.state = state
        self.store = store
        self.bodies = bodies

    def connect(self, *, can_end: bool = False) -> Wire:
        """One more connection."""
        return self._join(self._connect(), Wire(can_end=can_end))

    def _join(self, protocol: Protocol, wire: Wire) -> Wire:
        wire.protocol = protocol
        protocol.connection_made(wire)
        return wire

    async def wait(self, seconds: float) -> None:
        """Let time go by, a tenth of a second after the other."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        for _ in range(round(seconds * 10)):
            loop.now = round(loop.now + 0.1, 3)
            for _ in range(5):
                await asyncio.sleep(0)

    async def turn(self) -> None:
        """Let the loop turn often enough for anything that can happen to happen."""
        for _ in range(50):
            await asyncio.sleep(0)


def asked(bench: Bench, request: bytes) -> Wire:
    """A connection of its own that has asked for something."""
    wire = bench.connect(can_end=True)
    wire.protocol.data_received(request)
    return wire


def bench_test(
    lane: Switch,
    monkeypatch: pytest.MonkeyPatch,
    body: Callable[[Bench], Awaitable[None]],
    connections_max: int = 100,
    bodies_bytes_max: int = BODIES_BYTES_MAX,
) -> None:
    async def main() -> None:
        store = GatedStore()
        monkeypatch.setattr("app.main.build_store", lambda _, **__: store)
        settings = Settings(database_url="memory://", fast_lane=lane)
        service = build_service(settings, pytest.fail, Clock(NOW_MS))
        await service.ledger.open()
        config = server_config(settings, service)
        config.load()
        state = ServerState()
        room, bodies, fast_lane = Room(connections_max), Bodies(bodies_bytes_max), service.fast_lane
        connect = partial(Protocol, config, state, {}, fast_lane=fast_lane, room=room, bodies=bodies)
        await body(Bench(connect, state, store, bodies))
        store.gate.set()
        await service.ledger.close()

    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(main())
