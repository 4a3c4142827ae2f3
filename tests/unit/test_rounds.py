"""Rounds, in virtual time: what is told is heard, whatever becomes of a round."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest
import structlog

from app.core.bulletin import Bulletin
from app.core.window import Shape
from app.core.windows import Counted
from app.ledger import rounds
from app.ledger.cluster import Cluster
from app.ledger.peer import SILENT_MS_MAX, Source
from app.ledger.rounds import BYTES_PER_SECOND_MAX, ROUND_NODES, ROUND_SECONDS, Rounds
from app.ledger.statistics import Freshness, Statistics
from app.ledger.users import Users
from app.store.base import StoreRefused
from tests.support.exchange import Faults, MemoryExchange, Stream
from tests.support.virtual_time import VirtualTimeLoop, run

SHAPE = Shape.covering(60_000, 1000)
START_MS = 1_767_323_045_678
STORE = b"the same"


class Place:
    """Where nodes meet, and its clock."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.stream = Stream()

    def now_ms(self) -> int:
        return START_MS + round(self.loop.time() * 1000)

    def node(self, name: str) -> "Node":
        return Node(self, name)


class Node:
    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.statistics = Statistics(SHAPE, Users(SHAPE, 0))
        self.exchange = MemoryExchange(place.stream, random.Random(1), Faults(), place.now_ms)
        me = Source(name, STORE)
        self.cluster = Cluster(me, SHAPE, self.statistics, lambda epoch: self.cluster.begin_epoch(epoch))
        self.asked: list[str] = []
        self.answers: list[tuple[int, Counted] | StoreRefused] = []
        self.rounds = Rounds(self.cluster, self.statistics, self.exchange, place.now_ms, self._testimony)
        self.cluster.restart(SHAPE, 0, {})
        self.rounds.rewind()

    async def _testimony(self, node: str) -> tuple[int, Counted]:
        self.asked.append(node)
        answer = self.answers.pop(0) if self.answers else (0, {})
        if isinstance(answer, StoreRefused):
            raise answer
        return answer

    def count(self, number: int = 1) -> None:
        now_ms = self.place.now_ms()
        parts = [(now_ms - ago_ms, 1, 5, 5, 5) for ago_ms in range(number)]
        self.statistics.add({"EUR": parts})
        self.cluster.count({"EUR": parts})

    @property
    def counted(self) -> int:
        return self.statistics.windows.since(0).overall.count

    @property
    def freshness(self) -> Freshness:
        assert self.statistics.freshness is not None
        return self.statistics.freshness


Body = Callable[[Place], Awaitable[None]]


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    def play(body: Body) -> None:
        loop = VirtualTimeLoop()
        monkeypatch.setattr(rounds, "monotonic", loop.time)

        async def main() -> None:
            await body(Place(loop))

        run(main(), loop)

    return play


def test_a_start_is_degraded_until_all_is_heard(play: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        place.stream.messages_max = 10
        a, b = place.node("a"), place.node("b")
        for _ in range(25):
            a.count()
            await a.rounds.round()
            await asyncio.sleep(0.01)
        assert b.freshness.is_degraded
        for heard in (10, 20):
            assert await b.rounds.round() == 0
            assert (b.counted, b.freshness.is_degraded) == (heard, True)
        assert await b.rounds.round() == ROUND_SECONDS
        assert (b.counted, b.freshness.is_degraded, b.freshness.nodes) == (25, False, 2)
        # And once more, from the beginning.
        b.rounds.rewind()
        assert b.freshness.is_degraded
        assert await b.rounds.round() == 0
        assert b.freshness.is_degraded

    play(body)


def test_a_catch_up_that_takes_too_long_leaves_nothing_half_heard(play: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        place.stream.messages_max = 3
        a, b = place.node("a"), place.node("b")
        for _ in range(60):
            await asyncio.sleep(0.01)
            a.count()
            await a.rounds.round()
        running = asyncio.create_task(a.rounds.run())
        b.exchange.faults = Faults(slow=1.0)
        await b.rounds.catch_up()
        assert 0 < b.counted < 60
        assert b.freshness.is_degraded
        b.exchange.faults = Faults()
        while b.freshness.is_degraded:
            await b.rounds.round()
        assert b.counted == 60
        running.cancel()
        await asyncio.wait((running,))

    play(body)


def test_what_was_under_way_when_the_node_leaves_is_told(play: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        a, b = place.node("a"), place.node("b")
        running = asyncio.create_task(a.rounds.run())
        a.exchange.is_cut_off = True
        a.count(30)
        await asyncio.sleep(0.05)
        a.exchange.is_cut_off = False
        running.cancel()
        await asyncio.wait((running,))
        await a.rounds.leave()
        await b.rounds.catch_up()
        assert b.counted == 30
        assert (b.freshness.nodes, b.freshness.is_degraded) == (1, False)

    play(body)


def test_who_leaves_while_the_exchange_loses_everything_tells_everything(
    play: Callable[[Body], None],
) -> None:
    async def body(place: Place) -> None:
        a, b = place.node("a"), place.node("b")
        a.count(30)
        await a.rounds.round()
        place.stream.entries.clear()
        await asyncio.sleep(2)
        await a.rounds.leave()
        await b.rounds.catch_up()
        assert b.counted == 30

    play(body)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_bulletin_that_cannot_be_read_costs_none_of_the_others(
    play: Callable[[Body], None], breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(place: Place) -> None:
        a, b, c = (place.node(name) for name in "abc")
        await asyncio.sleep(0.1)
        a.count()
        await a.rounds.round()
        if breaks:
            await c.rounds.round()
            hear = Cluster.hear

            def trip(cluster: Cluster, bulletin: Bulletin, now_ms: int) -> None:
                if bulletin.node == "c":
                    raise OverflowError
                hear(cluster, bulletin, now_ms)

            monkeypatch.setattr(Cluster, "hear", trip)
        else:
            place.stream.append(b"\xc1")
        await asyncio.sleep(0.001)
        a.count()
        await a.rounds.round()
        await b.rounds.round()
        assert (b.counted, b.freshness.is_degraded) == (2, True)
        await asyncio.sleep(SILENT_MS_MAX / 1000 + 0.1)
        await a.rounds.round()
        await b.rounds.round()
        assert not b.freshness.is_degraded

    play(body)


def test_so_many_bytes_a_second_are_told_and_nothing_costs_nothing(play: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        a, others = place.node("a"), [place.node(f"n{number}") for number in range(19)]
        for each in others:
            await each.rounds.round()
        running = asyncio.create_task(a.rounds.run())
        await asyncio.sleep(2)
        assert a.freshness.nodes == 20
        before = len(place.stream.entries)
        a.count(60_000)
        await asyncio.sleep(1)
        told = sum(len(entry.message) for entry in place.stream.entries[before:])
        # What a second of silence has saved is told at once.
        allowed = BYTES_PER_SECOND_MAX / 22
        assert 1.5 * allowed < told < 2.5 * allowed
        running.cancel()
        await asyncio.wait((running,))

    play(body)


def test_the_more_nodes_there_are_the_fewer_rounds_each_has(play: Callable[[Body], None]) -> None:
    async def body(place: Place) -> None:
        a = place.node("a")
        assert await a.rounds.round() == ROUND_SECONDS
        for number in range(3 * ROUND_NODES - 1):
            await place.node(f"n{number}").rounds.round()
        await a.rounds.round()
        assert a.freshness.nodes == 3 * ROUND_NODES
        assert await a.rounds.round() == pytest.approx(3 * ROUND_SECONDS)
        # What there is to be told is told all the same.
        a.count(5)
        await asyncio.sleep(0.1)
        await a.rounds.round()
        b = place.node("b")
        await b.rounds.catch_up()
        assert b.counted == 5

    play(body)


def test_after_the_exchange_has_lost_everything_it_is_told_again_and_said_so(
    play: Callable[[Body], None], logs: list[structlog.typing.EventDict]
) -> None:
    async def body(place: Place) -> None:
        a, b = place.node("a"), place.node("b")
        a.count(30)
        await a.rounds.round()
        place.stream.forget()
        await b.rounds.round()
        assert b.counted == 0
        await a.rounds.round()
        await a.rounds.round()
        assert a.freshness.is_degraded
        await a.rounds.round()
        await b.rounds.round()
        assert b.counted == 30
        await asyncio.sleep(2)
        await b.rounds.round()
        await a.rounds.round()
        assert (a.freshness.nodes, a.freshness.is_degraded) == (2, False)

    play(body)
    assert [each["event"] for each in logs].count("exchange_has_lost_what_was_told") == 1


def test_an_exchange_that_does_not_answer_is_left_alone_and_found_again(
    play: Callable[[Body], None],
) -> None:
    async def body(place: Place) -> None:
        a, b = place.node("a"), place.node("b")
        await a.rounds.round()
        await b.rounds.round()
        running = asyncio.create_task(a.rounds.run())
        a.exchange.is_cut_off = True
        await asyncio.sleep(2)
        assert a.rounds.is_cut_off
        assert a.freshness.is_degraded
        a.count(3)
        a.exchange.is_cut_off = False
        await asyncio.sleep(1)
        assert not a.rounds.is_cut_off
        await b.rounds.round()
        assert b.counted == 3
        running.cancel()
        await asyncio.wait((running,))

    play(body)


def test_who_vanished_is_asked_of_the_store_and_asked_again(
    play: Callable[[Body], None], logs: list[structlog.typing.EventDict]
) -> None:
    async def body(place: Place) -> None:
        a, b = place.node("a"), place.node("b")
        await asyncio.sleep(0.1)
        a.count()
        kept = (place.now_ms(), 1, 5, 5, 5), (place.now_ms() - 1, 1, 6, 6, 6)
        await a.rounds.round()
        b.answers = [StoreRefused("not now"), *[(0, {"EUR": kept})] * 9]
        running = asyncio.create_task(b.rounds.run())
        await asyncio.sleep(SILENT_MS_MAX / 1000)
        assert b.asked == []
        await asyncio.sleep(0.5)
        assert (b.asked, b.counted, b.freshness.is_degraded) == (["a"], 1, True)
        await asyncio.sleep(1)
        assert (b.asked, b.counted, b.freshness.is_degraded) == (["a"] * 2, 2, False)
        await asyncio.sleep(SILENT_MS_MAX / 1000 + 0.5)
        assert b.asked == ["a"] * 3
        running.cancel()
        await asyncio.wait((running,))

    play(body)
    assert [each["event"] for each in logs].count("node_adopted") == 1
