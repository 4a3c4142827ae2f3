"""What the ledger promises whoever submits, reads and clears, whatever its clock does."""

import asyncio

import pytest

from app.core.summary import Summary
from app.core.transaction import Row, Transaction
from app.ledger.commit import Verdict
from app.ledger.reading import NotReady, Unready
from app.main import wall_clock_ms
from tests.support.ledger import MINUTE, NOW_MS, Bench, TroubledStore, bench_test
from tests.support.thread import Clock


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


def test_the_wall_clock_is_rounded_up_to_the_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    for time_ns, now_ms in ((5_000_000, 5), (5_000_001, 6), (5_999_999, 6)):
        monkeypatch.setattr("time.time_ns", lambda time_ns=time_ns: time_ns)
        assert wall_clock_ms() == now_ms


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
