"""Bounds of size and of time, byte by byte and second by second."""

import gc
import random
import weakref
from collections.abc import Callable
from itertools import repeat

import pytest

from app.settings import Switch
from app.web.body import BODY_BYTES_MAX
from app.web.limits import HEADERS_BYTES_MAX, HEADERS_MAX, REQUEST_BODY_BYTES_MAX, TARGET_BYTES_MAX
from app.web.protocol import Protocol
from app.web.room import TURNED_AWAY_MAX
from tests.support.wire import WHOLE, Answers, Bench, Wire, bench_test, get, post

both_lanes = pytest.mark.parametrize("lane", list(Switch))

CHUNKED = b"POST /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def statuses(wire: Wire) -> list[int]:
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


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


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


@both_lanes
@pytest.mark.parametrize("unsent_bytes", [0, 10])
def test_a_client_that_goes_on_sending_has_a_bounded_time_to_see_its_last_answer(
    lane: Switch, unsent_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        wire = bench.connect(can_end=True)
        wire.protocol.data_received(b"what is this\r\n\r\n" + get(b"/livez"))
        await bench.turn()
        wire.unsent_bytes = unsent_bytes
        assert wire.is_ended
        for _ in range(299 if unsent_bytes else 9):
            await bench.wait(0.1)
            wire.protocol.data_received(get(b"/livez"))
        assert not wire.is_closing()
        await bench.wait(0.1)
        assert statuses(wire) == [400]
        assert wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_client_that_goes_on_sending_is_not_listened_to_for_ever(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        wire = bench.connect(can_end=True)
        wire.protocol.data_received(post(b"x" * 70_000)[:-1])
        await bench.turn()
        assert wire.is_ended
        assert not wire.is_paused
        received = 0
        for piece in repeat(b"x" * 65_536):
            if wire.is_closing():
                break
            wire.protocol.data_received(piece)
            received += len(piece)
        assert statuses(wire) == [413]
        assert REQUEST_BODY_BYTES_MAX <= received <= REQUEST_BODY_BYTES_MAX + 2 * 65_536

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_client_that_has_ended_its_side_is_not_waited_for(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        wire = bench.connect(can_end=True)
        wire.protocol.data_received(post(WHOLE)[:-1])
        wire.protocol.eof_received()
        await bench.turn()
        assert statuses(wire) == [400]
        assert wire.is_closing()

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


@both_lanes
def test_nobody_is_told_to_go_on_behind_the_last_answer(
    lane: Switch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(bench: Bench) -> None:
        wire = bench.connect(can_end=True)
        head = CHUNKED.replace(b"host: x", b"host: x\r\nexpect: 100-continue")
        wire.protocol.data_received(head + b"zz\r\n")
        await bench.turn()
        assert statuses(wire) == [400]
        assert b"100 Continue" not in wire.written
        assert "request_failed" not in capsys.readouterr().out

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_connection_that_is_lost_is_forgotten_at_once(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        wire = bench.connect()
        wire.protocol.data_received(get(b"/livez"))
        await bench.turn()
        wire.protocol.connection_lost(ConnectionResetError())
        lost = weakref.ref(wire.protocol)
        del wire
        gc.collect()
        assert lost() is None

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_client_that_has_seen_its_last_answer_ends_the_waiting(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        wire = bench.connect(can_end=True)
        wire.protocol.data_received(b"what is this\r\n\r\n")
        await bench.turn()
        assert wire.is_ended
        assert not wire.is_closing()
        wire.protocol.eof_received()
        assert wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize("last", [post(WHOLE, b"connection: close"), get(b"/livez")])
def test_a_client_whose_requests_have_come_whole_is_not_waited_for(
    lane: Switch, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        wire = bench.connect(can_end=True)
        wire.protocol.data_received(last)
        await bench.turn()
        if not wire.is_closing():
            assert isinstance(wire.protocol, type(bench.protocol))
            wire.protocol.shutdown()
        assert wire.is_closing()
        assert not wire.is_ended

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


def asked(bench: Bench, request: bytes) -> Wire:
    wire = bench.connect(can_end=True)
    wire.protocol.data_received(request)
    return wire


@both_lanes
def test_a_connection_past_the_last_is_told_so_and_closed(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        second = bench.connect()
        for request in (post(WHOLE), get(b"/readyz"), get(b"/stats"), b"G"):
            wire = asked(bench, request)
            assert statuses(wire) == [503]
            assert b"retry-after: 1\r\n" in wire.written
            assert b"connection: close\r\n" in wire.written
            assert b"application/problem+json" in wire.written
            assert b'"code":"too_many_connections"' in wire.written
            assert wire.is_ended
            await bench.wait(1)
            assert wire.is_closing()
        second.protocol.data_received(get(b"/livez"))
        await bench.turn()
        assert statuses(second) == [200]
        second.close()
        await bench.turn()
        third = bench.connect()
        third.protocol.data_received(get(b"/livez"))
        await bench.turn()
        assert statuses(third) == [200]
        assert not third.is_closing()

    bench_test(lane, monkeypatch, body, connections_max=2)


@both_lanes
@pytest.mark.parametrize("target", [b"/livez", b"/health", b"/livez?", b"/health?x=1"])
def test_whether_the_process_lives_is_answered_without_room(
    lane: Switch, target: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        wire = asked(bench, get(target))
        assert statuses(wire) == [200]
        wire.protocol.data_received(get(target))
        assert statuses(wire) == [200]
        assert wire.written.endswith(b'{"status":"ok"}')
        assert wire.is_ended

    bench_test(lane, monkeypatch, body, connections_max=1)


@both_lanes
@pytest.mark.parametrize(
    ("target", "status"), [(b"/livez", 200), (b"/health?x=1", 200), (b"/stats", 503)]
)
def test_without_room_head_is_answered_as_get_is_but_for_the_body(
    lane: Switch, target: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        wire = asked(bench, get(target).replace(b"GET", b"HEAD"))
        assert wire.written.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close\r\n" in wire.written
        head, end, behind = wire.written.partition(b"\r\n\r\n")
        assert end
        assert behind == b""
        like = asked(bench, get(target)).written.partition(b"\r\n\r\n")[0]
        assert length(head) == length(like) > 0
        assert wire.is_ended

    def length(head: bytes) -> int:
        return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])

    bench_test(lane, monkeypatch, body, connections_max=1)


@both_lanes
@pytest.mark.parametrize("target", [b"/livezz", b"/live", b"/stats?/livez", b"//livez", b"/livez/"])
def test_nothing_but_a_probe_is_taken_for_one_without_room(
    lane: Switch, target: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        assert statuses(asked(bench, get(target))) == [503]

    bench_test(lane, monkeypatch, body, connections_max=1)


@both_lanes
def test_connections_past_the_last_are_bounded_too(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        waiting = [bench.connect() for _ in range(TURNED_AWAY_MAX)]
        assert not any(wire.is_closing() for wire in waiting)
        for place in range(TURNED_AWAY_MAX):
            waiting.append(bench.connect())
            assert [wire.is_closing() for wire in waiting].index(False) == place + 1
            assert not waiting[-1].is_closing()
        await bench.turn()
        assert sum(not wire.is_closing() for wire in waiting) == TURNED_AWAY_MAX
        await bench.wait(1)
        assert all(wire.is_closing() and not wire.written for wire in waiting)
        assert not bench.connect().is_closing()

    bench_test(lane, monkeypatch, body, connections_max=1)


@both_lanes
def test_who_asks_is_heard_however_many_connections_past_the_last_are_silent(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        silent = [bench.connect() for _ in range(2 * TURNED_AWAY_MAX)]
        heard = []
        for _ in range(TURNED_AWAY_MAX):
            heard.append(asked(bench, get(b"/livez")))
            silent.append(bench.connect())
        assert all(statuses(wire) == [200] for wire in heard)
        # An answered one is left to read, until there are only such.
        assert [wire.is_closing() for wire in heard] == [True] + [False] * (TURNED_AWAY_MAX - 1)
        await bench.turn()
        assert sum(not wire.is_closing() for wire in (*silent, *heard)) == TURNED_AWAY_MAX

    bench_test(lane, monkeypatch, body, connections_max=1)


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
