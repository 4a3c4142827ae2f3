"""Figures of users in the ledger: those of the list, read back at a start, and bounded in memory."""

import asyncio
import os
import random
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from app.core.idempotency import Record
from app.core.identifier import IdentifierSource
from app.core.summary import Summary
from app.core.transaction import Row, Transaction
from app.core.window import Shape
from app.ledger import upkeep
from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger
from app.ledger.users import Missing, Users
from app.store.base import MemoryStore, Recent, Store, Walk
from app.store.sqlite import SQLiteStore
from tests.support.client import NOW_MS, WINDOW_MS
from tests.support.thread import WAIT_SECONDS, Clock

READS = int(os.environ.get("MILLRACE_USER_READS", "1000"))
MINUTE = Shape.covering(WINDOW_MS, 1000)

STORES: list[Callable[[Path], Store]] = [
    lambda path: MemoryStore(),
    lambda path: SQLiteStore(path / "ledger.db"),
]


class SlowStore(MemoryStore):
    """Reads back one step at a time, when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = asyncio.Semaphore(1)

    async def recent(self, from_ms: int, to_ms: int, rows_max: int, walk: Walk | None = None) -> Recent:
        await self.steps.acquire()
        return await super().recent(from_ms, to_ms, rows_max, walk)


def fact(number: int, user_id: str = "a") -> Transaction:
    return Transaction(number, NOW_MS - number, "EUR", user_id)


async def submit(ledger: Ledger, facts: Sequence[Transaction]) -> None:
    verdicts: list[Verdict] = []
    for each in facts:
        ledger.submit(each, lambda verdict, _: verdicts.append(verdict))
    while len(verdicts) < len(facts):
        await asyncio.sleep(0)
    assert verdicts == [Verdict.ACCEPTED] * len(facts)


def ledger_of(store: Store, users: Users, clock: Clock | None = None) -> Ledger:
    ids = IdentifierSource(7)
    return Ledger(store, MINUTE, ids, clock or Clock(NOW_MS), pytest.fail, users=users)


def figures(ledger: Ledger, user_id: str = "a") -> Summary:
    return ledger.read(ledger.moment(), user_id=user_id).figures.overall


def run(body: Awaitable[None], seconds: float = WAIT_SECONDS) -> None:
    async def main() -> None:
        async with asyncio.timeout(seconds):
            await body

    asyncio.run(main())


@pytest.mark.parametrize("end", ["read back", "cleared"])
def test_while_users_are_read_back_all_else_goes_on(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(upkeep, "_LOAD_ROWS_MAX", 2)

    async def body() -> None:
        store = SlowStore()
        await store.append([Row(number, fact(number)) for number in range(7)])
        ledger = ledger_of(store, Users(MINUTE, 100))
        await ledger.open()
        for number in range(7, 10):
            assert ledger.why_unready() is None
            assert ledger.read(ledger.moment()).figures.overall.count == number
            with pytest.raises(Missing) as raised:
                figures(ledger)
            assert raised.value.for_ms is None
            posting = asyncio.create_task(submit(ledger, [fact(number)]))
            # The step that waits is in front of it, and has its turn.
            store.steps.release()
            await posting
        if end == "cleared":
            clearing = asyncio.create_task(ledger.clear())
            store.steps.release()
            assert await clearing is Verdict.ACCEPTED
            await submit(ledger, [fact(3)])
            assert figures(ledger) == Summary.of(3)
        else:
            while ledger._upkeep.has_more:
                await asyncio.sleep(0)
            assert figures(ledger) == Summary(10, sum(range(10)), 0, 9)
        for _ in range(10):
            store.steps.release()
        await ledger.close()

    run(body())


@pytest.mark.parametrize("store_at", STORES, ids=["memory", "sqlite"])
def test_more_than_there_is_room_for_is_not_read_back(
    store_at: Callable[[Path], Store], tmp_path: Path
) -> None:
    async def body() -> None:
        store, clock = store_at(tmp_path), Clock(NOW_MS)
        first = ledger_of(store, Users(MINUTE, 0), clock)
        await first.open()
        await submit(first, [fact(number) for number in range(4)])
        if isinstance(store, SQLiteStore):
            await first.close()
            store = store_at(tmp_path)
        users = Users(MINUTE, 3)
        ledger = ledger_of(store, users, clock)
        await ledger.open()
        assert users.rows == 0
        with pytest.raises(Missing):
            figures(ledger)
        clock.now_ms += WINDOW_MS + 2
        await submit(ledger, [Transaction(5, clock.now_ms, "EUR", "a")])
        assert figures(ledger) == Summary.of(5)
        await ledger.close()

    run(body())


@pytest.mark.parametrize("store_at", STORES, ids=["memory", "sqlite"])
def test_a_walk_finds_what_was_there_when_it_began_once_and_in_order(
    store_at: Callable[[Path], Store], tmp_path: Path
) -> None:
    async def body() -> None:
        store = store_at(tmp_path)
        await store.open()
        await store.append([Row(number, fact(number)) for number in range(3)])
        await store.clear()
        users = ["a", None, "ж\\\"'", "\U0001f600"]
        facts = [
            Transaction((-1) ** number * (2**63 - 1 - number), 1000 + number, "EUR", users[number % 4])
            for number in range(20)
        ]
        await store.append([Row(number, each) for number, each in enumerate(facts)])
        found: list[Transaction] = []
        walk, steps = None, 0
        while steps == 0 or walk is not None:
            step = await store.recent(1002, 1017, 3, walk)
            assert len(step.transactions) <= 3
            found += step.transactions
            walk = step.rest
            steps += 1
            await store.append([Row(100, Transaction(1, 1005, "EUR", "later"))])
        assert found == [each for each in facts[2:18] if each.user_id is not None]
        assert steps == 7
        assert (await store.recent(10**15, 10**16, 3)).transactions == []
        await store.close()

    run(body())


class KeepingStore(MemoryStore):
    """Forgets every row, as it is not what is measured."""

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        return 0


def test_a_random_read_among_many_users_is_that_of_the_list_and_idle_ones_leave_nothing() -> None:
    """By MILLRACE_USER_READS: as many live users, and as many reads."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)

    async def body() -> None:
        clock, users = Clock(NOW_MS), Users(MINUTE, 10**7, part_rows=64, many_rows=64)
        ledger = ledger_of(KeepingStore(), users, clock)
        await ledger.open()

        def sweep() -> None:
            users.sweep(ledger._oldest_ms())

        async def fill(live: int) -> dict[str, list[Transaction]]:
            facts = [
                Transaction(
                    choose.randrange(-(10**12), 10**12),
                    clock.now_ms - choose.randrange(WINDOW_MS),
                    choose.choice(("EUR", "USD")),
                    f"u-{number if number < live else int(live * choose.random() ** 8)}",
                )
                for number in range(2 * live)
            ]
            choose.shuffle(facts)
            for place in range(0, len(facts), 1000):
                await submit(ledger, facts[place : place + 1000])
            by_user: dict[str, list[Transaction]] = {}
            for each in facts:
                by_user.setdefault(each.user_id or "", []).append(each)
            return by_user

        def traced_bytes() -> int:
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before_bytes = traced_bytes()
            kept = await fill(READS)
            await submit(ledger, [fact(1, "last")])
            clock.now_ms += 2 * WINDOW_MS
            ledger.moment()
            del kept
            sweep()
            idle_bytes = traced_bytes() - before_bytes
        finally:
            tracemalloc.stop()
        assert users.rows == 0
        by_user = await fill(READS)
        live_rows = users.rows
        mismatches = 0
        for _ in range(READS):
            clock.now_ms += choose.choice((0, 0, 0, 1)) if clock.now_ms < NOW_MS + 3 * WINDOW_MS else 0
            user_id, window_ms = f"u-{choose.randrange(READS)}", choose.randrange(1, WINDOW_MS + 1)
            reading = ledger.read(ledger.moment(), window_ms, user_id=user_id)
            from_ms = reading.as_of_ms - window_ms
            units = [f.amount_units for f in by_user.get(user_id, ()) if f.timestamp_ms >= from_ms]
            expected = (len(units), sum(units), min(units, default=0), max(units, default=0))
            told = reading.figures.overall
            got = (told.count, told.sum_units, *((told.min_units, told.max_units) if units else (0, 0)))
            mismatches += got != expected
        assert mismatches == 0, f"seed {seed}"
        assert live_rows >= READS
        # What there is beside users: the ring of each currency.
        assert idle_bytes < 10 * 2**20, f"{idle_bytes} bytes"
        print(f"{idle_bytes} bytes left by {live_rows} rows")
        await ledger.close()

    run(body(), WAIT_SECONDS + READS / 100)
