"""Larger bodies share a bound: what is taken of it, and that it is given back."""

import random

import pytest

from app.settings import Switch
from app.web.body import BODY_BYTES_MAX
from app.web.protocol import Protocol
from tests.support.wire import WHOLE, Bench, asked, bench_test, both_lanes, get, post, statuses

BATCH = b"POST /transactions/batch HTTP/1.1\r\nhost: x\r\n"
LARGE_BYTES = 2 * BODY_BYTES_MAX


def batch(size_bytes: int, *headers: bytes, is_chunked: bool = False) -> bytes:
    """A batch of one, and of that size."""
    body = b"[%b]" % WHOLE.ljust(size_bytes - 2)
    lines = b"".join(b"%b\r\n" % header for header in headers)
    if not is_chunked:
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (BATCH, lines, size_bytes, body)
    chunks = [body[place : place + 30_000] for place in range(0, size_bytes, 30_000)]
    return b"%b%btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (
        BATCH,
        lines,
        b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks),
    )


@both_lanes
@pytest.mark.parametrize("headers", [(), (b"expect: 100-continue",)])
def test_larger_bodies_have_a_bound_in_common_which_is_judged_at_the_head(
    lane: Switch, headers: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        request = batch(LARGE_BYTES)
        bench.protocol.data_received(request[:-1])
        await bench.turn()
        over = batch(BODY_BYTES_MAX + 2, *headers)
        begun = set(bench.state.tasks)
        wire = asked(bench, over[: over.index(b"\r\n\r\n") + 4])
        assert bench.state.tasks == begun
        await bench.turn()
        assert b"retry-after: 1\r\n" in wire.written
        assert statuses(wire) == [503]
        assert b"100 Continue" not in wire.written
        assert b'"code":"not_ready"' in wire.written
        assert wire.is_ended
        exact, small = batch(BODY_BYTES_MAX + 1, *headers), batch(BODY_BYTES_MAX)
        allowed = [asked(bench, exact[:-1]), *(asked(bench, small) for _ in range(5))]
        assert bench.bodies.free_bytes == 0
        bench.protocol.data_received(request[-1:])
        allowed[0].protocol.data_received(exact[-1:])
        await bench.turn()
        assert all(statuses(wire) == [200] for wire in (bench.wire, *allowed))
        assert bench.bodies.free_bytes == LARGE_BYTES + BODY_BYTES_MAX + 1
        bench.protocol.data_received(request)
        await bench.turn()
        assert statuses(bench.wire) == [200, 200]

    bench_test(lane, monkeypatch, body, bodies_bytes_max=LARGE_BYTES + BODY_BYTES_MAX + 1)


@both_lanes
def test_a_body_without_a_length_is_refused_where_there_is_no_room_for_more_of_it(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        for size_bytes, status in ((LARGE_BYTES, 200), (LARGE_BYTES + 1, 503), (LARGE_BYTES, 200)):
            wire = asked(bench, post(WHOLE))
            request = batch(size_bytes, is_chunked=True)
            for place in range(0, len(request), 10_000):
                wire.protocol.data_received(request[place : place + 10_000])
                await bench.turn()
            assert statuses(wire) == [201, status]
            assert wire.is_ended == (status == 503)
            assert bench.bodies.free_bytes == LARGE_BYTES

    bench_test(lane, monkeypatch, body, bodies_bytes_max=LARGE_BYTES)


@both_lanes
def test_a_body_has_its_share_until_it_is_answered(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(batch(LARGE_BYTES) * 2)
        await bench.turn()
        assert bench.bodies.free_bytes == 0
        other = asked(bench, batch(LARGE_BYTES))
        await bench.turn()
        assert statuses(other) == [503]
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [200, 200]
        assert bench.bodies.free_bytes == 2 * LARGE_BYTES

    bench_test(lane, monkeypatch, body, bodies_bytes_max=2 * LARGE_BYTES)


@both_lanes
def test_a_body_that_goes_on_behind_its_answer_has_no_share(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        for is_chunked in (False, True):
            request = batch(LARGE_BYTES, is_chunked=is_chunked).replace(b"/transactions/batch", b"/nope")
            wire = asked(bench, request[:200])
            await bench.turn()
            wire.protocol.data_received(request[200:-1])
            assert bench.bodies.free_bytes == LARGE_BYTES
            wire.protocol.data_received(request[-1:] + get(b"/livez"))
            await bench.turn()
            assert statuses(wire) == [404, 200]

    bench_test(lane, monkeypatch, body, bodies_bytes_max=LARGE_BYTES)


def any_request(choose: random.Random) -> bytes:
    """One of the kinds that have a share, or none, or one that is broken."""
    size_bytes = choose.choice((BODY_BYTES_MAX, BODY_BYTES_MAX + 1, LARGE_BYTES, 3 * LARGE_BYTES))
    headers = choose.choice(
        (
            (),
            (b"expect: 100-continue",),
            (b"connection: upgrade", b"upgrade: x"),
            (b"connection: close",),
        )
    )
    large = batch(size_bytes, *headers, is_chunked=choose.random() < 0.5)
    return choose.choice(
        (
            large,
            large,
            large,
            large.replace(
                b"/transactions/batch", choose.choice((b"/nope", b"/transactions", b"/livez"))
            ),
            large.replace(b"POST", b"DELETE").replace(b"/batch", b""),
            large.replace(b"HTTP/1.1", choose.choice((b"HTTP/1.0", b"HTTP/2.0"))),
            large.replace(b"host: x", choose.choice((b"content-type: text/plain\r\nhost: x", b"x: x"))),
            large.replace(b"7530\r\n", b"zz\r\n"),
            post(WHOLE),
            get(b"/stats"),
            get(b"/readyz"),
        )
    )


@both_lanes
def test_whatever_becomes_of_a_body_its_share_is_given_back(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    room_bytes = 4 * LARGE_BYTES

    async def converse(bench: Bench, choose: random.Random) -> int:
        wires = [bench.connect(can_end=choose.random() < 0.5) for _ in range(5)]
        data = [b"".join(any_request(choose) for _ in range(choose.randrange(1, 4))) for _ in wires]
        least_bytes = room_bytes
        for _ in range(choose.randrange(5, 40)):
            place = choose.randrange(len(wires))
            wire = wires[place]
            if not (wire.is_closing() or wire.is_paused):
                cut = choose.choice((1, 100, 1000, 70_000, 200_000))
                piece, data[place] = data[place][:cut], data[place][cut:]
                wire.protocol.data_received(piece)
            if choose.random() < 0.1:
                bench.store.gate.clear() if bench.store.gate.is_set() else bench.store.gate.set()
            if choose.random() < 0.5:
                await bench.turn()
            assert 0 <= bench.bodies.free_bytes <= room_bytes, f"seed {seed}"
            least_bytes = min(least_bytes, bench.bodies.free_bytes)
        for wire in wires:
            protocol = wire.protocol
            assert isinstance(protocol, Protocol)
            choose.choice(
                (wire.close, protocol.eof_received, protocol.shutdown, protocol.cut_short, int)
            )()
        bench.store.gate.set()
        await bench.wait(choose.choice((0.1, 17)))
        for wire in wires:
            wire.close()
        await bench.turn()
        return least_bytes

    async def body(bench: Bench) -> None:
        choose = random.Random(seed)
        bench.store.gate.set()
        taken = 0
        for _ in range(60):
            taken += await converse(bench, choose) < room_bytes
            assert bench.bodies.free_bytes == room_bytes, f"seed {seed}"
        assert taken > 10, f"seed {seed}"

    bench_test(lane, monkeypatch, body, bodies_bytes_max=room_bytes)
