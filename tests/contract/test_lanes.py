"""Two lanes, one contract: whatever is asked, both give the same answer."""

import asyncio
import os
import random
import re

import msgspec
import pytest
from uvicorn.server import ServerState

from app.main import build_service
from app.server.serve import server_config
from app.settings import Authentication, Settings, Switch
from app.web.protocol import Protocol
from tests.support.attacks import secret_mint
from tests.support.issuer import AUDIENCE, EVERYTHING, ISSUER, SECRET
from tests.support.thread import Clock
from tests.support.wire import NOW_MS, WHOLE, Wire

CASES = int(os.environ.get("MILLRACE_LANES_CASES", "2000"))

METHODS = (
    [b"POST"] * 4 + [b"GET"] * 4 + [b"HEAD", b"PUT", b"post", b"DELETE", b"OPTIONS", b"BREW", b"CONNECT"]
)
TARGETS = [
    *([b"/transactions"] * 4 + [b"/stats"] * 3),
    *(b"/statistics", b"/health", b"/livez", b"/readyz", b"/", b"*", b"/stats/", b"/transactions%20"),
    *(b"/api/v1/transactions", b"/transactions/x", b"/transactions/%7Bid%7D", b"/transactions?limit=0"),
    *(b"/stats?user_id=alice", b"/stats?user_id=bob&window=1s", b"/stats?user_id=%e2%82%ac%ff"),
    *(b"/stats?window=1s", b"/stats?window=x", b"/stats?currency=EUR&currency=EUR", b"/stats?", b"/?"),
    *(
        b"/stats#part",
        b"http://x/stats",
        b"http://x",
        b"//stats",
        b"/st%61ts",
        b"/stats?%00=1",
        b"/stats?a=\xff",
    ),
]
VERSIONS = [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"http/1.1"]
HEADERS = [
    *(b"host: y", b"Content-Type: application/json", b"content-type:application/json"),
    *(b"Content-Type: APPLICATION/JSON; charset=utf-8", b"content-type: text/plain", b"content-type:"),
    *(b"X-Request-ID: abc", b"x-request-id: a b", b"x-request-id: ", b"X-Request-ID: " + b"a" * 65),
    *(
        b"Connection: keep-alive",
        b"connection: close",
        b"Connection: x",
        b"proxy-connection: close",
        b"Expect: 100-continue",
    ),
    *(b"content-encoding: gzip", b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked"),
    *(b"content-length: 0", b"content-length: +1", b"content-length: x", b"content-length: 70000"),
    *(b"upgrade: h2c", b"bad header", b"x:\x00", b" folded: 1", b"a" * 1100 + b": 1", b"accept: */*"),
]
BODIES = [WHOLE] * 3 + [
    b"",
    b"{}",
    b"[]",
    b"{",
    b'{"amount":"x"}',
    b'{"amount":1,"timestamp":1}',
    b"\xff",
]


WRITES, READS = (secret_mint(claims={"scope": scope}) for scope in (EVERYTHING, "stats:read"))
AUTHORIZATIONS = [
    *([b"Authorization: Bearer " + WRITES.encode()] * 8),
    *([b"Authorization: Bearer " + READS.encode()] * 2),
    *(b"authorization: bearer " + READS.encode(), b"Authorization: Bearer " + WRITES.encode() + b"="),
    *(b"authorization: Bearer", b"authorization:", b"Authorization: Basic x", b"Origin: https://x"),
    b"Authorization: Bearer \xff",
]
OPEN = Settings(database_url="memory://")
BY_TOKEN = Settings(
    database_url="memory://",
    auth=Authentication.JWT,
    jwt_secret=SECRET,
    jwt_issuer=ISSUER,
    jwt_audience=AUDIENCE,
)


def request(choose: random.Random) -> bytes:
    body = choose.choice(BODIES)
    headers = [choose.choice(HEADERS) for _ in range(choose.choice((0, 1, 1, 2, 3, 5)))]
    headers += choose.choices(AUTHORIZATIONS, k=choose.choice((0, 1, 1, 1, 1, 1, 2)))
    if choose.random() < 0.9:
        headers.append(b"Content-Length: %d" % len(body))
    if choose.random() < 0.9:
        headers.append(b"Host: x")
    choose.shuffle(headers)
    line = b" ".join((choose.choice(METHODS), choose.choice(TARGETS), choose.choice(VERSIONS)))
    return b"\r\n".join([line, *headers, b"", body])


def comparable(written: bytes) -> list[bytes]:
    """The lines in any order, as headers may be; ids, cursors and made request ids are a lane's own."""
    written = re.sub(rb'"id":"[0-9a-f-]{36}"', b'"id"', written)
    written = re.sub(rb'"next_cursor":"[\w-]+"', b'"next_cursor"', written)
    written = re.sub(rb"x-request-id: [0-9a-f]{32}\r", b"x-request-id\r", written)
    return sorted(written.split(b"\r\n"))


@pytest.mark.parametrize("door", [OPEN, BY_TOKEN], ids=["open", "by token"])
def test_both_lanes_answer_alike_whatever_is_asked(door: Settings) -> None:
    seed = random.SystemRandom().randrange(2**32)

    async def main() -> None:
        protocols = []
        for lane in Switch:
            settings = msgspec.structs.replace(door, fast_lane=lane)
            service = build_service(settings, pytest.fail, Clock(NOW_MS))
            await service.ledger.open()
            config = server_config(settings, service)
            config.load()
            protocols.append((service, config))
        for case in range(CASES):
            raw = request(random.Random(seed + case))
            answers, closed = [], []
            for service, config in protocols:
                wire = Wire()
                wire.protocol = Protocol(config, ServerState(), {}, fast_lane=service.fast_lane)
                wire.protocol.connection_made(wire)
                wire.protocol.data_received(raw)
                for _ in range(12):
                    await asyncio.sleep(0)
                if not wire.written:
                    # Whatever it is, it has its answer once no more can come.
                    wire.protocol.eof_received()
                    await asyncio.sleep(0)
                    assert wire.written, f"seed {seed}, case {case}: {raw!r}"
                answers.append(comparable(wire.written))
                closed.append(wire.is_closing())
                wire.close()
                await asyncio.sleep(0)
            assert answers[0] == answers[1], f"seed {seed}, case {case}: {raw!r}"
            assert closed[0] == closed[1], f"seed {seed}, case {case}: {raw!r}"
        for service, _ in protocols:
            await service.ledger.close()

    asyncio.run(main())


def test_a_caller_who_is_known_takes_the_fast_lane() -> None:
    async def main() -> None:
        service = build_service(BY_TOKEN, pytest.fail, Clock(NOW_MS))
        await service.ledger.open()
        config = server_config(BY_TOKEN, service)
        config.load()
        wire, state = Wire(), ServerState()
        wire.protocol = Protocol(config, state, {}, fast_lane=service.fast_lane)
        wire.protocol.connection_made(wire)
        head = b"GET /stats HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n"
        for token, plain_requests in [
            (READS, 1),
            (READS, 1),
            (WRITES, 2),
            (READS, 2),
            ("x", 3),
            ("x", 4),
        ]:
            wire.protocol.data_received(head % token.encode())
            for _ in range(12):
                await asyncio.sleep(0)
            assert state.total_requests == plain_requests
        assert wire.written.count(b"HTTP/1.1 200") == 4
        assert wire.written.count(b"HTTP/1.1 401") == 2
        await service.ledger.close()

    asyncio.run(main())


def test_the_heads_of_strangers_do_not_take_the_place_of_a_known_callers() -> None:
    async def main() -> None:
        service = build_service(BY_TOKEN, pytest.fail, Clock(NOW_MS))
        await service.ledger.open()
        config = server_config(BY_TOKEN, service)
        config.load()
        fast_lane, wire = service.fast_lane, Wire()
        assert fast_lane is not None
        wire.protocol = Protocol(config, ServerState(), {}, fast_lane=fast_lane)
        wire.protocol.connection_made(wire)
        head = b"GET /stats HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n"
        wire.protocol.data_received(head % READS.encode())
        for _ in range(12):
            await asyncio.sleep(0)
        remembered = fast_lane.head(head % READS.encode())
        assert remembered is not None
        for number in range(3000):
            stranger = fast_lane.head(head % str(number).encode())
            assert stranger is not None
            assert fast_lane.caller(stranger) is None
        assert fast_lane.head(head % READS.encode()) is remembered
        await service.ledger.close()

    asyncio.run(main())


def test_heads_for_the_plain_lane_do_not_take_the_place_of_others() -> None:
    service = build_service(OPEN, pytest.fail, Clock(NOW_MS))
    fast_lane = service.fast_lane
    assert fast_lane is not None
    head = b"GET /stats HTTP/1.1\r\nhost: x\r\n%b\r\n"
    remembered = fast_lane.head(head % b"")
    assert remembered is not None
    for number in range(3000):
        assert fast_lane.head(head % b"origin: https://a%d.example\r\n" % number) is None
    assert fast_lane.head(head % b"") is remembered
