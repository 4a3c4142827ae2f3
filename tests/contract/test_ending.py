"""The end of a connection from the client's side, and of the service: what came whole is answered."""

import pytest

from app.settings import Switch
from tests.support.wire import WHOLE, Answers, Bench, bench_test, both_lanes, get, post, statuses


@both_lanes
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


@both_lanes
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


@both_lanes
def test_what_came_whole_before_the_client_ended_its_side_is_answered(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE) * 3 + get(b"/readyz") + post(WHOLE))
        assert bench.protocol.eof_received()
        await bench.turn()
        assert not bench.wire.is_closing()
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201, 201, 201, 200, 201]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_half_a_request_before_the_client_ended_its_side_is_refused_in_its_turn(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE) + post(WHOLE)[:-1])
        bench.protocol.eof_received()
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201, 400]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_client_that_only_ends_its_side_is_let_go(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.eof_received()
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_at_shutdown_only_the_last_answer_says_that_the_connection_closes(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE) + get(b"/readyz"))
        await bench.turn()
        bench.protocol.shutdown()
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201, 200]
        assert bench.wire.written.count(b"connection: close") == 1
        assert bench.wire.written.index(b"connection: close") > bench.wire.written.index(b"201 Created")
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_request_that_arrives_during_the_shutdown_is_not_begun(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE))
        await bench.turn()
        bench.protocol.shutdown()
        bench.protocol.data_received(post(WHOLE))
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_body_that_arrives_during_the_shutdown_is_taken(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        request = post(WHOLE, b"expect: 100-continue")
        bench.protocol.data_received(post(WHOLE) + request[:-5])
        await bench.turn()
        bench.protocol.shutdown()
        bench.protocol.data_received(request[-5:])
        bench.store.gate.set()
        await bench.turn()
        assert statuses(bench.wire) == [201, 201]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


def test_what_a_drain_has_no_time_for_is_not_begun_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(post(WHOLE) + get(b"/readyz"))
        await bench.turn()
        bench.protocol.cut_short()
        await bench.turn()
        assert statuses(bench.wire) == [503]
        assert bench.wire.is_closing()

    bench_test(Switch.ON, monkeypatch, body)
