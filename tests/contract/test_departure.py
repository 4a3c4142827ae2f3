"""The end of a connection from our side: its last answer is seen, and is not waited on for ever."""

import gc
import weakref
from itertools import repeat

import pytest

from app.settings import Switch
from app.web.limits import REQUEST_BODY_BYTES_MAX
from tests.support.wire import CHUNKED, WHOLE, Bench, bench_test, both_lanes, get, post, statuses


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
