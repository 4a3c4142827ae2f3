"""Requests cut anywhere, one behind another: every answer comes, in the order of the requests.

The connection is driven byte by byte through the protocol class itself, so that a cut is where the
test puts it and not where the kernel does.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import httptools
import pytest
from uvicorn.server import ServerState

from app.core.transaction import Row
from app.main import build_service
from app.server.serve import server_config
from app.settings import Settings, Switch
from app.store.base import MemoryStore
from app.web.protocol import Protocol
from tests.support.thread import Clock

NOW_MS = 1_767_323_045_678
CASES = int(os.environ.get("MILLRACE_FRAMING_CASES", "1500"))
TURNS_MAX = 5000

Request = tuple[bytes, int]


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /transactions HTTP/1.1", b"host: x", *headers]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


def get(target: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % target


UPGRADE = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk")
WHOLE = b'{"amount":1,"timestamp":%d}' % NOW_MS
CHUNKED = (
    b"POST /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n"
) % (WHOLE[:5], len(WHOLE) - 5, WHOLE[5:])

ORDINARY: list[Request] = [
    (post(WHOLE), 201),
    (post(WHOLE, b"Content-Type: application/json", b"Connection: keep-alive"), 201),
    (post(b'{"amount":1,"timestamp":1}'), 204),
    (post(b"{"), 400),
    (post(b""), 400),
    (post(b'{"amount":"x"}'), 422),
    (post(WHOLE, b"content-type: text/plain"), 415),
    (post(WHOLE, b"expect: 100-continue"), 201),
    (CHUNKED, 201),
    (post(WHOLE, *UPGRADE), 201),
    (CHUNKED.replace(b"host: x", b"\r\n".join([b"host: x", *UPGRADE])), 201),
    (get(b"/stats").replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"), 200),
    (get(b"/stats"), 200),
    (get(b"/stats?window=1s"), 200),
    (get(b"/stats?window=never"), 422),
    (get(b"/health"), 200),
    (get(b"/readyz"), 200),
    (get(b"/nope"), 404),
    (b"\r\n" + get(b"/livez"), 200),
]
CLOSING: list[Request] = [
    (post(WHOLE, b"connection: close"), 201),
    (post(WHOLE).replace(b"HTTP/1.1", b"HTTP/1.0"), 201),
    (b"GET /stats HTTP/2.0\r\nhost: x\r\n\r\n", 400),
    (b"what is this\r\n\r\n", 400),
    (post(b"x", b"content-length: 2"), 400),
    (b"GET /stats HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
    (CHUNKED.replace(b"\r\n5\r\n", b"\r\nz\r\n"), 400),
    (post(b" " * 65_537), 413),
]


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_paused = False
        self._is_closing = False
        self.protocol: Protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._is_closing, "written after the close"
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

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


class SlowStore(MemoryStore):
    """Takes its time over a commit, now and then."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__()
        self._choose = choose

    async def append(self, rows: Sequence[Row]) -> None:
        for _ in range(self._choose.choice((0, 0, 1, 5))):
            await asyncio.sleep(0)
        await super().append(rows)


def conversation(choose: random.Random) -> tuple[bytes, list[int], list[bytes | None]]:
    """Requests one behind another, the statuses to expect, and the request ids where given."""
    requests = [choose.choice(ORDINARY) for _ in range(choose.randrange(1, 10))]
    if choose.random() < 0.3:
        requests.append(choose.choice(CLOSING))
        # Nothing behind a request that closes is answered.
        trailer = choose.choice(ORDINARY)[0] if choose.random() < 0.3 else b""
    else:
        trailer = b""
    sent, statuses, request_ids = b"", [], []
    for number, (raw, status) in enumerate(requests):
        request_id = None
        if choose.random() < 0.4 and b"host: x" in raw and b"bad header" not in raw:
            request_id = b"request-%d" % number
            raw = raw.replace(b"host: x", b"host: x\r\nX-Request-ID: %s" % request_id, 1)
        sent += raw
        statuses.append(status)
        request_ids.append(request_id)
    return sent + trailer, statuses, request_ids


def pieces(choose: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(choose.randrange(len(data) + 1) for _ in range(choose.choice((0, 1, 3, 12))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def converse(connect: partial[Protocol], choose: random.Random) -> None:
    """One connection from its opening to the last answer."""
    sent, statuses, request_ids = conversation(choose)
    wire = Wire()
    wire.protocol = connect()
    wire.protocol.connection_made(wire)
    answers = Answers()
    for piece in pieces(choose, sent):
        if choose.random() < 0.5:
            await asyncio.sleep(0)
        for _ in range(TURNS_MAX):
            if not wire.is_paused or wire.is_closing():
                break
            await asyncio.sleep(0)
        if not wire.is_closing() and piece:
            wire.protocol.data_received(piece)
    for _ in range(TURNS_MAX):
        if wire.written:
            written, wire.written = wire.written, b""
            answers.read(written)
        if len(answers.statuses) >= len(statuses):
            break
        await asyncio.sleep(0)
    assert answers.statuses == statuses
    for found, expected, status in zip(answers.request_ids, request_ids, statuses, strict=True):
        if expected is not None and status != 400:
            assert found == expected
        assert status < 400 or found
    wire.close()
    await asyncio.sleep(0)


class GatedStore(MemoryStore):
    """Commits when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def append(self, rows: Sequence[Row]) -> None:
        await self.gate.wait()
        await super().append(rows)


class Bench:
    """A connection to a service whose store waits to be let go on."""

    def __init__(self, protocol: Protocol, wire: Wire, state: ServerState, store: GatedStore) -> None:
        self.protocol = protocol
        self.wire = wire
        self.state = state
        self.store = store

    async def turn(self) -> None:
        """Let the loop turn often enough for anything that can happen to happen."""
        for _ in range(50):
            await asyncio.sleep(0)


def bench_test(
    lane: Switch, monkeypatch: pytest.MonkeyPatch, body: Callable[[Bench], Awaitable[None]]
) -> None:
    async def main() -> None:
        store = GatedStore()
        monkeypatch.setattr("app.main._build_store", lambda _: store)
        settings = Settings(database_url="memory://", fast_lane=lane)
        service = build_service(settings, pytest.fail, Clock(NOW_MS))
        await service.ledger.open()
        config = server_config(settings, service)
        config.load()
        state, wire = ServerState(), Wire()
        protocol = Protocol(config, state, {}, fast_lane=service.fast_lane)
        wire.protocol = protocol
        protocol.connection_made(wire)
        await body(Bench(protocol, wire, state, store))
        store.gate.set()
        await service.ledger.close()

    asyncio.run(main())


@pytest.mark.parametrize("lane", list(Switch))
def test_a_client_that_does_not_read_is_not_read_from(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.pause_writing()
        bench.protocol.data_received(get(b"/stats") * 5)
        await bench.turn()
        assert bench.wire.is_paused
        bench.protocol.resume_writing()
        await bench.turn()
        assert not bench.wire.is_paused
        answers = Answers()
        answers.read(bench.wire.written)
        assert answers.statuses == [200] * 5

    bench_test(lane, monkeypatch, body)


@pytest.mark.parametrize("lane", list(Switch))
def test_what_is_undecided_when_a_drain_ends_is_told_so(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE))
        await bench.turn()
        bench.protocol.shutdown()
        assert bench.wire.written == b""
        for task in bench.state.tasks:
            task.cancel()
        bench.protocol.cut_short()
        await bench.turn()
        answers = Answers()
        answers.read(bench.wire.written)
        assert answers.statuses == [503]
        assert b"application/problem+json" in bench.wire.written
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@pytest.mark.parametrize("lane", list(Switch))
def test_a_client_that_is_gone_leaves_no_trace_in_the_log(
    lane: Switch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received((post(WHOLE) + get(b"/nope")) * 3)
        await bench.turn()
        bench.wire.close()
        await bench.turn()
        bench.store.gate.set()
        await bench.turn()
        assert bench.wire.written == b""
        assert caplog.records == []

    bench_test(lane, monkeypatch, body)


@pytest.mark.parametrize("lane", list(Switch))
def test_answers_keep_the_order_of_their_requests_wherever_the_bytes_are_cut(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.SystemRandom().randrange(2**32)

    async def main() -> None:
        settings = Settings(database_url="memory://", fast_lane=lane)
        monkeypatch.setattr("app.main._build_store", lambda _: SlowStore(random.Random(seed)))
        service = build_service(settings, pytest.fail, Clock(NOW_MS))
        await service.ledger.open()
        config = server_config(settings, service)
        config.load()
        connect = partial(Protocol, config, ServerState(), {}, fast_lane=service.fast_lane)
        for case in range(CASES):
            try:
                await converse(connect, random.Random(seed + case))
            except BaseException:
                print(f"seed {seed}, case {case}")
                raise
        await service.ledger.close()

    asyncio.run(main())
