"""Bounds of size, byte by byte."""

import random
from collections.abc import Callable

import pytest

from app.settings import Switch
from app.web.limits import HEADERS_BYTES_MAX, HEADERS_MAX, REQUEST_BODY_BYTES_MAX, TARGET_BYTES_MAX
from tests.support.wire import (
    CHUNKED,
    WHOLE,
    Bench,
    bench_test,
    both_lanes,
    byte_by_byte,
    get,
    post,
    refused,
    statuses,
)


def with_headers(count: int, size_bytes: int) -> bytes:
    """A request with that many headers, of that size together as the bound counts it."""
    names = [b"h%d" % number for number in range(count - 2)]
    rest = size_bytes - sum(len(name) + 4 for name in names) - len("host: x\r\n") - len("last: \r\n")
    lines = [b"GET /stats HTTP/1.1", b"host: x", *(name + b": " for name in names)]
    return b"\r\n".join([*lines, b"last: " + b"v" * rest, b"", b""])


def with_trailers(count: int, size_bytes: int) -> bytes:
    rest = size_bytes - (count - 1) * len("t: \r\n") - len("t: \r\n")
    lines = [b"t: "] * (count - 1) + [b"t: " + b"v" * rest]
    return CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(WHOLE), WHOLE) + b"\r\n".join([*lines, b"", b""])


def with_target(length: int) -> bytes:
    return get(b"/" + b"a" * (length - 1))


def whole(data: bytes) -> list[bytes]:
    return [data]


def cut_in_two(data: bytes) -> list[bytes]:
    return [data[:-3], data[-3:]]


BOUNDS = [
    (with_headers(HEADERS_MAX, 2000), 200, None),
    (with_headers(HEADERS_MAX + 1, 2000), 431, "headers_too_large"),
    (with_headers(HEADERS_MAX + 1, 800), 431, "headers_too_large"),
    (with_headers(3, HEADERS_BYTES_MAX), 200, None),
    (with_headers(3, HEADERS_BYTES_MAX + 1), 431, "headers_too_large"),
    (with_headers(90, HEADERS_BYTES_MAX + 1), 431, "headers_too_large"),
    (with_headers(3, 200_000), 431, "headers_too_large"),
    (with_trailers(HEADERS_MAX, 2000), 201, None),
    (with_trailers(HEADERS_MAX + 1, 2000), 431, "headers_too_large"),
    (with_trailers(3, HEADERS_BYTES_MAX), 201, None),
    (with_trailers(3, HEADERS_BYTES_MAX + 1), 431, "headers_too_large"),
    (with_target(TARGET_BYTES_MAX), 404, None),
    (with_target(TARGET_BYTES_MAX + 1), 414, "target_too_long"),
    (with_target(200_000), 414, "target_too_long"),
    (get(b"/stats").replace(b"GET", b"GET" + b" " * 3000), 200, None),
]


@both_lanes
@pytest.mark.parametrize("cut", [whole, cut_in_two, byte_by_byte])
@pytest.mark.parametrize(("request_", "status", "code"), BOUNDS)
def test_what_is_too_large_is_refused_to_the_byte_wherever_it_is_cut(
    lane: Switch,
    cut: Callable[[bytes], list[bytes]],
    request_: bytes,
    status: int,
    code: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        for piece in cut(request_):
            bench.protocol.data_received(piece)
        await bench.turn()
        if code is None:
            assert statuses(bench.wire) == [status]
            assert not bench.wire.is_closing()
        else:
            assert refused(bench.wire, status, code)

    bench_test(lane, monkeypatch, body)


ENDLESS: list[tuple[bytes, bytes, int]] = [
    (b"GET /", b"a" * 999, 414),
    (b"GET ", b" " * 999, 431),
    (b"GET / HTTP/1.1\r\n", b"a" * 999, 431),
    (b"GET / HTTP/1.1\r\na: ", b"a" * 999, 431),
    (b"GET / HTTP/1.1\r\na: ", b" " * 999, 431),
    (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 170, 431),
    (CHUNKED, b"0" * 999, 431),
    (CHUNKED + b"1;", b"a" * 999, 431),
    (CHUNKED + b"0\r\na: ", b"a" * 999, 431),
    (CHUNKED + b"0\r\n", b"a: b\r\n" * 170, 431),
    (b"A", b"A" * 999, 400),
]


@both_lanes
@pytest.mark.parametrize(("start", "more", "status"), ENDLESS)
def test_what_does_not_end_is_refused_before_much_of_it_has_come(
    lane: Switch, start: bytes, more: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(start)
        received = 0
        while not bench.wire.written:
            bench.protocol.data_received(more)
            received += len(more)
            assert received < 70_000
            await bench.turn()
        assert statuses(bench.wire) == [status]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize("path", [b"/transactions/batch", b"/nope", b"/livez"])
@pytest.mark.parametrize("expects", [False, True])
def test_a_body_that_no_door_takes_is_refused_at_its_head(
    lane: Switch, path: bytes, expects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        lines = [b"POST %b HTTP/1.1" % path, b"host: x", b"content-length: %d"]
        if expects:
            lines.append(b"expect: 100-continue")
        head = b"\r\n".join([*lines, b"", b""])
        bench.protocol.data_received(head % (REQUEST_BODY_BYTES_MAX + 1))
        await bench.turn()
        assert b"100 Continue" not in bench.wire.written
        assert refused(bench.wire, 413, "body_too_large")

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize("method", [b"POST", b"DELETE"])
def test_a_body_that_its_door_does_not_take_is_refused_at_its_head(
    lane: Switch, method: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        head = post(b"")[:-5].replace(b"POST", method) + b"65537\r\n\r\n"
        bench.protocol.data_received(head)
        await bench.turn()
        assert refused(bench.wire, 413, "body_too_large")

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize(("path", "expected"), [(b"/transactions/batch", [413]), (b"/nope", [404])])
def test_a_body_without_a_length_is_read_no_further_than_any_door_would(
    lane: Switch, path: bytes, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(CHUNKED.replace(b"/transactions", path))
        received, chunk = 0, b"40000\r\n" + b" " * 0x40000 + b"\r\n"
        while not bench.wire.is_closing():
            bench.protocol.data_received(chunk)
            received += 0x40000
            assert received <= REQUEST_BODY_BYTES_MAX + 0x40000
            await bench.turn()
        assert received > REQUEST_BODY_BYTES_MAX
        assert statuses(bench.wire) == expected

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_bodies_of_one_connection_are_bounded_one_by_one(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        head = CHUNKED.replace(b"/transactions", b"/transactions/batch")
        for _ in range(3):
            bench.protocol.data_received(head)
            for _ in range(5):
                bench.protocol.data_received(b"100000\r\n" + b" " * 2**20 + b"\r\n")
                await bench.turn()
            bench.protocol.data_received(b"2\r\n[]\r\n0\r\n\r\n")
            await bench.turn()
        assert statuses(bench.wire) == [200] * 3

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_the_order_of_answers_outlives_a_refusal(lane: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.SystemRandom().randrange(2**32)

    async def body(bench: Bench) -> None:
        choose = random.Random(seed)
        for _ in range(50):
            wire = bench.connect(can_end=choose.random() < 0.5)
            before = [choose.choice((post(WHOLE), get(b"/readyz"))) for _ in range(choose.randrange(5))]
            bad, status = choose.choice([(data, status) for data, status, code in BOUNDS if code])
            data = b"".join(before) + bad
            cut = choose.randrange(len(data))
            bench.store.gate.clear()
            wire.protocol.data_received(data[:cut])
            await bench.turn()
            wire.protocol.data_received(data[cut:])
            bench.store.gate.set()
            for _ in range(5):
                await bench.turn()
            expected = [201 if request.startswith(b"POST") else 200 for request in before]
            assert statuses(wire) == [*expected, status], f"seed {seed}"
            assert wire.is_ended or wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_refusal_that_waits_for_its_turn_stays_the_last(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE) + with_headers(HEADERS_MAX + 1, 2000))
        bench.protocol.eof_received()
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201, 431]

    bench_test(lane, monkeypatch, body)
