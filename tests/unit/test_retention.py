"""Rows go when they were kept long enough ago: in short steps, and never those the window needs."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from app.core.identifier import IdentifierSource
from app.core.question import Portion, Question
from app.core.transaction import Row, Transaction
from app.core.window import Shape
from app.ledger import maintenance
from app.ledger.cluster import Cluster
from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger
from app.ledger.nodes import Membership
from app.ledger.peer import Source
from app.ledger.reading import Unready
from app.ledger.statistics import Statistics
from app.ledger.users import Users
from app.store.base import MemoryStore, Store, StoreRefused
from app.store.sqlite import SQLiteStore
from tests.support.exchange import Faults, MemoryExchange, Stream
from tests.support.thread import Clock
from tests.support.wire import SteppedLoop

NOW_MS = 1_767_323_045_678
DAY_MS = 86_400_000
MINUTE = Shape.covering(60_000, 1000)

Opener = Callable[[Path], Store]

STORES = [
    pytest.param(lambda path: MemoryStore(), id="memory"),
    pytest.param(lambda path: SQLiteStore(path / "ledger.db"), id="sqlite"),
]


class Trimmed(MemoryStore):
    """A memory store that notes what it was asked to trim."""

    def __init__(self) -> None:
        super().__init__()
        self.trims: list[tuple[int, int]] = []
        self.trouble: Exception | None = None

    async def trim(self, before_ms: int, rows_max: int) -> bool:
        self.trims.append((before_ms, rows_max))
        if self.trouble is not None:
            raise self.trouble
        return await super().trim(before_ms, rows_max)


@asynccontextmanager
async def opened(store: Store, clock: Clock, retention_ms: int) -> AsyncIterator[Ledger]:
    identifiers = IdentifierSource(7)
    opening = Ledger(store, MINUTE, identifiers, clock, pytest.fail, retention_ms=retention_ms)
    await opening.open()
    try:
        yield opening
    finally:
        await opening.close()


async def keep(ledger: Ledger, timestamp_ms: int, number: int = 1) -> list[int]:
    """Post some transactions, and their ids when they are kept."""
    ids: list[int] = []
    answers = 0

    def done(verdict: Verdict, rows: Sequence[Row]) -> None:
        nonlocal answers
        assert verdict is Verdict.ACCEPTED
        answers += 1
        ids.extend(row.id for row in rows)

    for _ in range(number):
        ledger.submit(Transaction(1, timestamp_ms, "EUR", None), done)
    while answers < number:
        await asyncio.sleep(0)
    return ids


async def kept(store: Store) -> list[int]:
    page = await store.page(Question(), Portion(10_000))
    return sorted(row.id for row in page.rows)


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a loop whose timers fire when it is told so."""

    async def main() -> None:
        await body()

    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(main())


async def turns(number: int = 50) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def maintained() -> None:
    """Let every rest come to its end until all that is due has been done."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    for _ in range(20):
        await turns()
        loop.now += 1.0
    await turns()


@pytest.mark.parametrize("opener", STORES)
def test_rows_go_when_they_were_kept_so_long_ago(
    opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_INTERVAL_SECONDS", 0.001)

    async def body() -> None:
        store, clock = opener(tmp_path), Clock(NOW_MS)
        trim, ends = store.trim, asyncio.Event()

        async def noted(before_ms: int, rows_max: int) -> bool:
            has_more = await trim(before_ms, rows_max)
            if not has_more:
                ends.set()
            return has_more

        monkeypatch.setattr(store, "trim", noted)

        async def trimmed(now_ms: int) -> list[int]:
            """What is kept when all has gone that is to go by then."""
            ends.clear()
            clock.now_ms = now_ms
            await ends.wait()
            return await kept(store)

        async with asyncio.timeout(20), opened(store, clock, 30 * DAY_MS) as opened_ledger:
            days: list[list[int]] = []
            for day in range(3):
                clock.now_ms = NOW_MS + day * DAY_MS
                # What happened a while before it was kept is as old as its keeping.
                days.append(await keep(opened_ledger, clock.now_ms - day * 20_000, 700))
            assert await trimmed(NOW_MS + 30 * DAY_MS) == sorted(days[0] + days[1] + days[2])
            assert await trimmed(NOW_MS + 31 * DAY_MS + 60_000) == sorted(days[2])
            await keep(opened_ledger, clock.now_ms)
            figures = opened_ledger.read(opened_ledger.moment()).figures
            assert figures.overall.count == 1

    asyncio.run(body())


def test_without_a_retention_nothing_is_ever_trimmed() -> None:
    async def body() -> None:
        store, clock = Trimmed(), Clock(NOW_MS)
        async with opened(store, clock, 0) as ledger:
            await keep(ledger, NOW_MS)
            clock.now_ms += 36_500 * DAY_MS
            await maintained()
            assert store.trims == []

    run(body)


def test_what_the_window_needs_stays_however_short_the_retention_is() -> None:
    async def body() -> None:
        store, clock = Trimmed(), Clock(NOW_MS)
        async with opened(store, clock, 1) as ledger:
            ids = await keep(ledger, NOW_MS + MINUTE.ahead_ms)
            # The row is the window's to the last millisecond, and by a clock that then steps back.
            clock.now_ms += MINUTE.window_ms + MINUTE.ahead_ms + MINUTE.rewind_ms
            await maintained()
            assert store.trims
            assert await kept(store) == ids

    run(body)


def test_steps_are_short_and_posts_have_the_store_to_themselves_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds: Iterator[int] = count()
    monkeypatch.setattr(maintenance, "monotonic", lambda: next(seconds) / 10)

    async def body() -> None:
        store, clock = Trimmed(), Clock(NOW_MS)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        async with opened(store, clock, DAY_MS) as kept_a_day:
            # Past the look of the start.
            await maintained()
            await keep(kept_a_day, NOW_MS, 1200)
            clock.now_ms += DAY_MS + 1
            store.trims.clear()
            loop.now += 1.0
            for step in (1, 2, 3):
                await turns()
                assert len(store.trims) == step
                # A step of a tenth of a second is followed by a rest of eight tenths, full of commits.
                await keep(kept_a_day, clock.now_ms, 30)
                loop.now += 0.79
                await turns()
                assert len(store.trims) == step
                loop.now += 0.02
            # That was the last one: the next look is due in a minute.
            await maintained()
            assert store.trims == [(NOW_MS + 1, 500)] * 3
            assert len(await kept(store)) == 90
            clock.now_ms += 60_000
            await maintained()
            assert len(store.trims) == 4

    run(body)


def test_a_store_that_refuses_to_trim_is_asked_again() -> None:
    async def body() -> None:
        store, clock = Trimmed(), Clock(NOW_MS)
        async with opened(store, clock, DAY_MS) as ledger:
            await keep(ledger, NOW_MS)
            clock.now_ms += DAY_MS + 60_000
            store.trouble = StoreRefused("full")
            await maintained()
            assert store.trims
            store.trouble = None
            await maintained()
            assert await kept(store) == []

    run(body)


def test_a_node_whose_clock_is_wrong_deletes_nothing_for_its_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is old by it may be new, and other nodes' as well."""
    monkeypatch.setattr(maintenance, "_INTERVAL_SECONDS", 0.005)

    async def main() -> None:
        stream, store = Stream(), Trimmed()
        began, ahead_ms = time.monotonic(), 400 * DAY_MS

        def wall_ms() -> float:
            return NOW_MS + (time.monotonic() - began) * 1000

        right = Cluster(Source("right", b"store"), MINUTE, Statistics(MINUTE, Users(MINUTE, 0)), print)
        right.restart(MINUTE, 0, {})
        right.note_clock(0.0, 1.0, NOW_MS)
        stream.append(right.bulletin(NOW_MS, 1000).bulletin.encode())
        exchange = MemoryExchange(stream, random.Random(1), Faults(), wall_ms)
        ledger = Ledger(
            store,
            MINUTE,
            IdentifierSource(7),
            lambda: math.ceil(wall_ms()) + ahead_ms,
            pytest.fail,
            retention_ms=DAY_MS,
            membership=Membership("wrong", exchange),
        )
        await ledger.open()
        assert ledger.why_unready() is Unready.CLOCK_SKEWED
        await asyncio.sleep(0.1)
        assert not store.trims
        ahead_ms = 0
        while not store.trims:
            await asyncio.sleep(0.001)
        assert all(before_ms < NOW_MS for before_ms, _ in store.trims)
        await ledger.close()

    asyncio.run(main())
