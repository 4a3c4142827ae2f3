"""What the ledger promises whoever submits, reads and clears, whatever its store does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from app.core.idempotency import Record
from app.core.identifier import IdentifierSource
from app.core.summary import Summary
from app.core.transaction import Row, Transaction
from app.core.window import Shape
from app.ledger import commit, maintenance
from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger, NotReady, Unready
from app.main import wall_clock_ms
from app.store.base import MemoryStore, StoreFailed, StoreRefused
from tests.support.thread import Clock

NOW_MS = 1_767_323_045_678
MINUTE = Shape.covering(60_000, 1000)


class TroubledStore(MemoryStore):
    """A memory store that can be held up, and told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.trouble: Exception | None = None

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.batches.append(len(rows))
        return await super().append(rows, records)

    async def clear(self) -> int:
        if self.trouble is not None:
            raise self.trouble
        return await super().clear()

    async def probe(self) -> None:
        if self.trouble is not None:
            raise self.trouble


class Bench:
    """An open ledger with its store, its clock, and what it said."""

    def __init__(self, store: TroubledStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.failures: list[str] = []
        self.verdicts: list[Verdict] = []
        self.ids: list[int] = []
        self.ledger = Ledger(store, MINUTE, IdentifierSource(7), clock, self.failures.append)

    def submit(self, age_ms: int = 0, amount_units: int = 1) -> None:
        transaction = Transaction(amount_units, self.clock.now_ms - age_ms, "EUR", None)

        def done(verdict: Verdict, rows: Sequence[Row]) -> None:
            self.verdicts.append(verdict)
            self.ids += [row.id for row in rows]

        self.ledger.submit(transaction, done)

    async def answered(self, number: int) -> None:
        while len(self.verdicts) < number:
            await asyncio.sleep(0)

    def count(self, window_ms: int | None = None) -> int:
        return self.ledger.read(self.ledger.moment(), window_ms).figures.overall.count


def bench_test(body: Callable[[Bench], Awaitable[None]]) -> None:
    """Run a test on an open ledger, bounded in time."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Bench]:
        bench = Bench(TroubledStore(), Clock(NOW_MS))
        await bench.ledger.open()
        yield bench
        bench.store.gate.set()
        await bench.ledger.close()

    async def main() -> None:
        async with asyncio.timeout(20), opened() as bench:
            await body(bench)

    asyncio.run(main())


def test_a_transaction_is_counted_when_it_is_durable_and_not_before() -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.clear()
        bench.submit()
        await asyncio.sleep(0)
        assert (bench.count(), bench.verdicts) == (0, [])
        bench.store.gate.set()
        await bench.answered(1)
        assert (bench.count(), bench.verdicts) == (1, [Verdict.ACCEPTED])

    bench_test(body)


def test_whatever_waits_while_a_commit_runs_is_the_next_commit() -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.clear()
        bench.submit()
        await asyncio.sleep(0)
        for _ in range(100):
            bench.submit()
        bench.store.gate.set()
        await bench.answered(101)
        assert bench.store.batches == [1, 100]
        assert bench.ids == sorted(bench.ids)

    bench_test(body)


def test_a_deletion_takes_effect_between_what_came_before_and_what_came_after() -> None:
    async def body(bench: Bench) -> None:
        bench.submit(amount_units=1)
        clearing = asyncio.create_task(bench.ledger.clear())
        await asyncio.sleep(0)
        bench.submit(amount_units=5)
        await clearing
        await bench.answered(2)
        assert bench.ledger.read(bench.ledger.moment()).figures.overall == Summary.of(5)

    bench_test(body)


def test_a_deletion_that_is_refused_leaves_the_statistics_as_they_are() -> None:
    async def body(bench: Bench) -> None:
        bench.submit()
        await bench.answered(1)
        bench.store.trouble = StoreRefused("full")
        assert await bench.ledger.clear() is Verdict.REFUSED
        assert bench.count() == 1

    bench_test(body)


def test_a_row_that_cannot_be_counted_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        def break_down(*_: object) -> None:
            raise RuntimeError("a defect of ours")

        monkeypatch.setattr(bench.ledger.statistics, "record", break_down)
        bench.submit()
        await bench.answered(1)
        assert bench.verdicts == [Verdict.FAILED]
        assert bench.failures == ["a defect of ours"]

    bench_test(body)


def test_the_wall_clock_is_rounded_up_to_the_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    for time_ns, now_ms in ((5_000_000, 5), (5_000_001, 6), (5_999_999, 6)):
        monkeypatch.setattr("time.time_ns", lambda time_ns=time_ns: time_ns)
        assert wall_clock_ms() == now_ms


def test_past_its_bound_the_queue_takes_nothing_more() -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.clear()
        for _ in range(commit.PENDING_ROWS_MAX + 1):
            bench.submit()
        assert bench.verdicts == [Verdict.UNREADY]
        assert bench.ledger.why_unready() is Unready.OVERLOADED
        bench.store.gate.set()
        await bench.answered(commit.PENDING_ROWS_MAX + 1)
        assert bench.ledger.why_unready() is None
        assert max(bench.store.batches) <= commit.GATHERED_ROWS_MAX

    bench_test(body)


@pytest.mark.parametrize(("commit_seconds", "queued_batches_max"), [(0.001, 17), (0.03, 2), (10.0, 1)])
def test_the_slower_the_store_is_the_less_may_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, commit_seconds: float, queued_batches_max: int
) -> None:
    monkeypatch.setattr(commit, "GATHERED_ROWS_MAX", 10)
    monkeypatch.setattr(commit, "PENDING_ROWS_MAX", 170)

    async def body(bench: Bench) -> None:
        seconds = 0.0
        monkeypatch.setattr(commit, "monotonic", lambda: seconds)
        for number in range(1, 4):
            bench.store.gate.clear()
            bench.submit()
            await asyncio.sleep(0)
            seconds += commit_seconds
            bench.store.gate.set()
            await bench.answered(number)
        assert bench.ledger.why_unready() is None
        bench.store.gate.clear()
        bench.submit()
        await asyncio.sleep(0)
        taken = 0
        while bench.verdicts[3:] == []:
            taken += 1
            bench.submit()
        assert bench.verdicts[3:] == [Verdict.UNREADY]
        assert bench.ledger.why_unready() is Unready.OVERLOADED
        # The last one was not taken. A batch that is not full has room for anyone.
        assert taken - 1 == min(queued_batches_max * 10, 169)
        bench.store.gate.set()
        await bench.answered(3 + 1 + taken)
        assert bench.ledger.why_unready() is None

    bench_test(body)


def test_one_slow_commit_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "GATHERED_ROWS_MAX", 10)

    async def body(bench: Bench) -> None:
        seconds = 0.0
        monkeypatch.setattr(commit, "monotonic", lambda: seconds)
        for number, lasted in enumerate((0.001, 5.0), 1):
            bench.store.gate.clear()
            bench.submit()
            await asyncio.sleep(0)
            seconds += lasted
            bench.store.gate.set()
            await bench.answered(number)
        bench.store.gate.clear()
        for _ in range(100):
            bench.submit()
        assert bench.verdicts == [Verdict.ACCEPTED] * 2
        assert bench.ledger.why_unready() is None

    bench_test(body)


def test_a_store_without_room_refuses_and_is_found_well_again_without_traffic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance, "_INTERVAL_SECONDS", 0.001)

    async def body(bench: Bench) -> None:
        bench.store.trouble = StoreRefused("full")
        bench.submit()
        await bench.answered(1)
        assert bench.verdicts == [Verdict.REFUSED]
        assert bench.ledger.why_unready() is Unready.STORE_REFUSES
        assert bench.count() == 0
        bench.store.trouble = None
        while bench.ledger.why_unready() is not None:
            await asyncio.sleep(0)
        bench.submit()
        await bench.answered(2)
        assert bench.verdicts[-1] is Verdict.ACCEPTED
        assert bench.failures == []

    bench_test(body)


@pytest.mark.parametrize("trouble", [StoreFailed("sync"), OSError("nobody foresaw this")])
def test_after_a_failure_of_the_store_nothing_is_acknowledged(trouble: Exception) -> None:
    async def body(bench: Bench) -> None:
        bench.store.trouble = trouble
        bench.submit()
        await bench.answered(1)
        bench.store.trouble = None
        bench.submit()
        assert bench.verdicts == [Verdict.FAILED, Verdict.UNREADY]
        assert bench.ledger.why_unready() is Unready.STORE_FAILED
        assert (bench.count(), bench.store.batches) == (0, [])
        assert len(bench.failures) == 1
        assert await bench.ledger.clear() is Verdict.UNREADY

    bench_test(body)


def test_what_waits_behind_a_failed_commit_is_not_tried() -> None:
    async def body(bench: Bench) -> None:
        bench.store.gate.clear()
        bench.submit()
        await asyncio.sleep(0)
        bench.submit()
        bench.store.trouble = StoreFailed("sync")
        bench.store.gate.set()
        await bench.answered(2)
        assert bench.verdicts == [Verdict.FAILED, Verdict.FAILED]
        assert len(bench.failures) == 1

    bench_test(body)


def test_one_callers_trouble_does_not_cost_the_others_their_answer() -> None:
    async def body(bench: Bench) -> None:
        def trouble(verdict: Verdict, rows: Sequence[Row]) -> None:
            raise RuntimeError("a connection that is gone")

        bench.ledger.submit(Transaction(1, NOW_MS, "EUR", None), trouble)
        bench.submit()
        await bench.answered(1)
        assert bench.verdicts == [Verdict.ACCEPTED]
        assert bench.count() == 2

    bench_test(body)


def test_closing_keeps_what_was_submitted_and_takes_nothing_more() -> None:
    async def main() -> None:
        bench = Bench(TroubledStore(), Clock(NOW_MS))
        await bench.ledger.open()
        bench.submit()
        closing = asyncio.create_task(bench.ledger.close())
        await asyncio.sleep(0)
        bench.submit()
        await closing
        assert sorted(verdict.value for verdict in bench.verdicts) == ["accepted", "unready"]
        assert await bench.ledger.clear() is Verdict.UNREADY

    asyncio.run(main())


def test_nothing_is_taken_or_answered_before_the_window_is_read_back() -> None:
    async def main() -> None:
        bench = Bench(TroubledStore(), Clock(NOW_MS))
        bench.submit()
        assert bench.verdicts == [Verdict.UNREADY]
        assert bench.ledger.why_unready() is Unready.STARTING
        with pytest.raises(NotReady):
            bench.ledger.read(bench.ledger.moment())

    asyncio.run(main())


def test_a_start_reads_the_window_back_and_only_the_window() -> None:
    async def main() -> None:
        store = TroubledStore()
        for age_ms in (0, 59_999, 60_000, 60_001):
            transaction = Transaction(1, NOW_MS - age_ms, "EUR", None)
            await store.append([Row(1, transaction)])
        bench = Bench(store, Clock(NOW_MS))
        await bench.ledger.open()
        assert bench.count() == 3
        await bench.ledger.close()

    asyncio.run(main())


def test_a_clock_that_steps_back_a_little_changes_nothing() -> None:
    async def body(bench: Bench) -> None:
        for age_ms in (0, 30_000, 60_000):
            bench.submit(age_ms)
        await bench.answered(3)
        bench.clock.now_ms += MINUTE.rewind_ms
        bench.submit()
        await bench.answered(4)
        bench.clock.now_ms -= MINUTE.rewind_ms
        assert bench.ledger.why_unready() is None
        assert bench.count() == 4

    bench_test(body)


def test_deletions_that_wait_share_one_and_are_refused_when_the_queue_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(bench: Bench) -> None:
        cleared = 0

        clear_store = bench.store.clear

        async def clear() -> int:
            nonlocal cleared
            cleared += 1
            return await clear_store()

        monkeypatch.setattr(bench.store, "clear", clear)
        bench.store.gate.clear()
        bench.submit()
        await asyncio.sleep(0)
        deletions = [asyncio.create_task(bench.ledger.clear()) for _ in range(100)]
        await asyncio.sleep(0)
        bench.submit()
        bench.store.gate.set()
        assert set(await asyncio.gather(*deletions)) == {Verdict.ACCEPTED}
        assert cleared == 1
        await bench.answered(2)
        assert bench.count() == 1
        assert await bench.ledger.clear() is Verdict.ACCEPTED
        assert cleared == 2
        monkeypatch.setattr(commit, "PENDING_ROWS_MAX", 0)
        assert await bench.ledger.clear() is Verdict.UNREADY

    bench_test(body)


def test_a_clock_that_steps_back_a_little_after_a_start_finds_its_window_whole() -> None:
    async def main() -> None:
        store = TroubledStore()
        rewind_ms = MINUTE.rewind_ms
        oldest_ms = NOW_MS - MINUTE.window_ms - rewind_ms
        old = [Row(n, Transaction(1, oldest_ms + n, "EUR", None)) for n in range(rewind_ms)]
        await store.append(old)
        bench = Bench(store, Clock(NOW_MS))
        await bench.ledger.open()
        assert bench.count() == 0
        bench.clock.now_ms -= rewind_ms
        assert bench.count() == rewind_ms
        await bench.ledger.close()

    asyncio.run(main())


def test_a_clock_set_back_further_has_the_window_read_back_before_it_answers() -> None:
    async def body(bench: Bench) -> None:
        for age_ms in (0, 30_000, 60_000):
            bench.submit(age_ms)
        await bench.answered(3)
        # A minute with the clock ahead by half an hour drops the first three from the ring.
        bench.clock.now_ms += 1_800_000
        bench.submit()
        await bench.answered(4)
        bench.clock.now_ms -= 1_800_000
        assert bench.ledger.why_unready() is Unready.CLOCK_STEPPED
        with pytest.raises(NotReady):
            bench.ledger.read(bench.ledger.moment())
        bench.submit()
        assert bench.verdicts[-1] is Verdict.UNREADY
        while bench.ledger.why_unready() is not None:
            await asyncio.sleep(0)
        # All four: what lies ahead of the clock is no older than the window either.
        assert (bench.count(), bench.count(1)) == (4, 2)
        bench.submit()
        await bench.answered(6)
        assert bench.count() == 5

    bench_test(body)
