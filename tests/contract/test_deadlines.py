"""Bounds of time, second by second: for a head, a request, an idle connection, an answer."""

import pytest

from app.settings import Switch
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

HALVES = [
    pytest.param(get(b"/stats")[:-1], 5.0, id="head"),
    pytest.param(get(b"/stats?a=" + b"a" * 300)[:-1], 5.0, id="long head"),
    pytest.param(post(WHOLE)[:-1], 15.0, id="body"),
    pytest.param(post(b" " * 60_000)[:-1], 15.0, id="long body"),
    pytest.param(post(WHOLE, b"expect: 100-continue")[:-1], 15.0, id="continued body"),
    pytest.param(CHUNKED + b"5\r\n12345\r\n" + b"1\r\n \r\n" * 200, 15.0, id="chunks"),
    pytest.param(CHUNKED + b"0\r\n" + b"a: b\r\n" * 50, 15.0, id="trailers"),
    pytest.param(post(WHOLE, b"connection: upgrade", b"upgrade: x")[:-1], 15.0, id="upgrade"),
]


@both_lanes
@pytest.mark.parametrize(("half", "seconds"), HALVES)
@pytest.mark.parametrize("idle_seconds", [0.0, 3.0])
def test_half_a_request_is_given_up_in_its_time_however_often_a_byte_comes(
    lane: Switch,
    half: bytes,
    seconds: float,
    idle_seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(bench: Bench) -> None:
        await bench.wait(idle_seconds)
        # The head of a body is sent at once, so that what follows is the body's trickle.
        start = half.find(b"\r\n\r\n") + 4 if seconds > 5 else 1
        bench.protocol.data_received(half[:start])
        rest = iter(byte_by_byte(half[start:]))
        for _ in range(round(seconds * 10) - 1):
            await bench.wait(0.1)
            assert b"408" not in bench.wire.written
            bench.protocol.data_received(next(rest, b""))
        assert not bench.wire.is_closing()
        await bench.wait(0.1)
        bench.wire.written = bench.wire.written.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert refused(bench.wire, 408, "request_timeout")

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize("noise", [b"", b"\r\n"])
def test_a_connection_that_asks_for_nothing_is_closed_without_a_word(
    lane: Switch, noise: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        for _ in range(49):
            await bench.wait(0.1)
            bench.protocol.data_received(noise)
        assert not bench.wire.is_closing()
        await bench.wait(0.1)
        assert bench.wire.is_closing()
        assert bench.wire.written == b""

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize("target", [b"/livez", b"/readyz"])
def test_an_idle_connection_is_closed_when_its_time_is_over_since_the_last_answer(
    lane: Switch, target: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        for _ in range(3):
            await bench.wait(4)
            bench.protocol.data_received(get(target))
            await bench.turn()
        await bench.wait(4.9)
        assert not bench.wire.is_closing()
        await bench.wait(0.1)
        assert bench.wire.is_closing()
        assert statuses(bench.wire) == [200] * 3

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_each_request_has_a_time_of_its_own(lane: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        request = post(WHOLE)
        for _ in range(3):
            await bench.wait(4)
            bench.protocol.data_received(request[:10])
            await bench.wait(4)
            bench.protocol.data_received(request[10:-1])
            await bench.wait(10)
            bench.protocol.data_received(request[-1:])
            await bench.turn()
        assert statuses(bench.wire) == [201] * 3
        assert not bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_client_that_waits_for_the_disk_is_not_hurried(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE))
        await bench.wait(60)
        assert bench.wire.written == b""
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201]
        await bench.wait(4.9)
        assert not bench.wire.is_closing()
        await bench.wait(0.1)
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize(
    ("half", "seconds"), [(get(b"/stats")[:-1], 5.0), (post(WHOLE)[:-1], 15.0), (CHUNKED, 15.0)]
)
def test_half_a_request_behind_one_that_waits_has_its_time_from_when_its_turn_has_come(
    lane: Switch, half: bytes, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE) + half)
        await bench.wait(60)
        assert bench.wire.written == b""
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201]
        await bench.wait(seconds - 0.1)
        assert statuses(bench.wire) == [201]
        # Where the plain lane looks every second, it may take that much longer.
        await bench.wait(1.1)
        assert statuses(bench.wire) == [201, 408]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_body_that_goes_on_behind_its_answer_ends_the_connection_without_another(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(CHUNKED.replace(b"/transactions", b"/nope"))
        for _ in range(149):
            await bench.wait(0.1)
            bench.protocol.data_received(b"1\r\n \r\n")
        assert not bench.wire.is_closing()
        await bench.wait(0.1)
        assert statuses(bench.wire) == [404]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_after_a_body_that_went_on_behind_its_answer_the_connection_is_as_good_as_before(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(CHUNKED.replace(b"/transactions", b"/nope"))
        await bench.wait(14)
        bench.protocol.data_received(b"0\r\n\r\n")
        await bench.wait(4)
        bench.protocol.data_received(get(b"/livez"))
        await bench.turn()
        assert statuses(bench.wire) == [404, 200]

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_client_that_does_not_take_its_answers_is_let_go(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(get(b"/livez"))
        await bench.turn()
        bench.protocol.pause_writing()
        await bench.wait(29.9)
        assert not bench.wire.is_closing()
        bench.protocol.resume_writing()
        bench.protocol.pause_writing()
        await bench.wait(29.9)
        assert not bench.wire.is_closing()
        await bench.wait(0.1)
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)
