"""Connections past the last: each is told so, and who asks whether the process lives is answered."""

import pytest

from app.settings import Switch
from app.web.room import TURNED_AWAY_MAX
from tests.support.wire import WHOLE, Bench, asked, bench_test, both_lanes, get, post, statuses


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
