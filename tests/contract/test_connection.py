"""What a connection owes its client, whichever lane its requests take."""

import asyncio
import random

import pytest

from app.settings import Switch
from tests.support.wire import WHOLE, Answers, Bench, bench_test, both_lanes, get, post, statuses


@both_lanes
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


@both_lanes
@pytest.mark.parametrize("target", [b"GET http://x", b"CONNECT x:80"])
def test_a_target_that_the_server_cannot_read_is_answered_and_closed(
    lane: Switch, target: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.data_received(get(b"/stats") + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        await bench.turn()
        assert statuses(bench.wire) == [200, 400]
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_thousands_of_offers_to_upgrade_in_one_piece_are_all_answered(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        offer = get(b"/livez").replace(b"host: x", b"host: x\r\nconnection: upgrade\r\nupgrade: x")
        bench.protocol.data_received(offer * 2000)
        for _ in range(50):
            await bench.turn()
        assert statuses(bench.wire) == [200] * 2000

    bench_test(lane, monkeypatch, body)


def test_one_connection_does_not_keep_the_loop_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        choose = random.Random(1)
        flood = b"".join(get(b"/stats?window=%dms" % choose.randrange(1, 60_000)) for _ in range(1000))
        bench.protocol.data_received(flood)
        taken = len(statuses(bench.wire))
        assert 0 < taken < 50, "one packet of it, one turn of the loop"
        assert bench.wire.is_paused
        await asyncio.sleep(0)
        assert taken < len(statuses(bench.wire)) < 1000
        assert bench.wire.is_paused
        bench.protocol.data_received(get(b"/nope"))
        for _ in range(20):
            await bench.turn()
        assert statuses(bench.wire) == [200] * 1000 + [404]
        assert not bench.wire.is_paused

    bench_test(Switch.ON, monkeypatch, body)


def test_a_flood_from_a_client_that_does_not_read_waits_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(bench: Bench) -> None:
        bench.protocol.pause_writing()
        bench.protocol.data_received(get(b"/livez") * 1000)
        for _ in range(20):
            await bench.turn()
        assert len(statuses(bench.wire)) < 50
        bench.protocol.resume_writing()
        for _ in range(20):
            await bench.turn()
        assert statuses(bench.wire) == [200] * 1000

    bench_test(Switch.ON, monkeypatch, body)


@both_lanes
def test_a_deletion_whose_body_is_broken_has_deleted_nothing(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        deletion = (
            b"DELETE /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
        )
        bench.protocol.data_received(post(WHOLE))
        await bench.turn()
        bench.protocol.data_received(get(b"/stats") + deletion)
        await bench.turn()
        assert statuses(bench.wire) == [201, 200, 400]
        assert b'"count":1' in bench.wire.written
        other = bench.connect()
        other.protocol.data_received(get(b"/stats"))
        await bench.turn()
        assert b'"count":1' in other.written

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_a_refusal_before_the_client_was_told_to_go_on_closes(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        head = post(b"x" * 60, b"expect: 100-continue", b"content-type: text/plain")[:-60]
        bench.protocol.data_received(head)
        await bench.turn()
        assert statuses(bench.wire) == [415]
        assert b"connection: close" in bench.wire.written
        assert bench.wire.is_closing()

    bench_test(lane, monkeypatch, body)


@both_lanes
@pytest.mark.parametrize("cut", [0, 1], ids=["together", "apart"])
def test_trailers_are_no_headers_however_they_arrive(
    lane: Switch, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        head = b"POST /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        rest = b"%x\r\n%b\r\n0\r\ncontent-type: text/plain\r\nx-request-id: tr\r\n\r\n" % (
            len(WHOLE),
            WHOLE,
        )
        for piece in (head, rest) if cut else (head + rest,):
            bench.protocol.data_received(piece)
            await bench.turn()
        assert statuses(bench.wire) == [201]
        assert b"x-request-id" not in bench.wire.written

    bench_test(lane, monkeypatch, body)


@both_lanes
def test_zeros_before_a_length_are_read_over(lane: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        length = b"content-length: "
        request = post(WHOLE).replace(length, length + b"0" * 4400)
        bench.protocol.data_received(request)
        await bench.turn()
        assert statuses(bench.wire) == [201]

    bench_test(lane, monkeypatch, body)


UNCLEAR = [
    b"POST /transactions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /transactions HTTP/1.1\r\nhost: x\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /transactions HTTP/1.0\r\nhost: x\r\nhost: y\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /transactions HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2, 2\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2;\n\r\n{}\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\n folded: y\r\ncontent-length: 2\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length : 2\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nhost: x\r\nx: \x00\r\ncontent-length: 2\r\n\r\n{}",
    b"POST / HTTP/1.1\nhost: x\ncontent-length: 2\n\n{}",
]


@both_lanes
@pytest.mark.parametrize("request_", UNCLEAR)
def test_what_two_servers_could_read_differently_is_refused_whole(
    lane: Switch, request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        bench.protocol.data_received(get(b"/livez") + request_ + get(b"/livez"))
        await bench.turn()
        assert statuses(bench.wire) == [200, 400]
        assert bench.wire.written.count(b"HTTP/1.1 ") == 2

    bench_test(lane, monkeypatch, body)


def batch(body: bytes) -> bytes:
    head = b"POST /transactions/batch HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def test_a_batch_full_of_errors_leaves_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        wrong = batch(b"[%b]" % b",".join([b"{}"] * 10_000))
        bench.protocol.data_received(wrong)
        other = bench.connect()
        for answered in range(1, 50):
            await asyncio.sleep(0)
            other.protocol.data_received(get(b"/livez"))
            assert len(statuses(other)) == answered
        assert bench.wire.written == b"", "in fifty turns it is not through"
        while not bench.wire.written:
            await asyncio.sleep(0)
        assert statuses(bench.wire) == [200]
        assert b'"rejected":10000' in bench.wire.written

    bench_test(Switch.ON, monkeypatch, body)


def test_only_so_many_batches_full_of_errors_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.set()
        wires = [bench.connect() for _ in range(40)]
        for wire in wires:
            wire.protocol.data_received(batch(b"[%b]" % b",".join([b"{}"] * 500)))
        while not all(wire.written for wire in wires):
            await asyncio.sleep(0)
        assert sorted(statuses(wire)[0] for wire in wires) == [200] * 32 + [503] * 8
        assert all(b"retry-after" in wire.written for wire in wires if statuses(wire) == [503])
        last = bench.connect()
        last.protocol.data_received(batch(b"[{}]"))
        await bench.turn()
        assert statuses(last) == [200]

    bench_test(Switch.ON, monkeypatch, body)
