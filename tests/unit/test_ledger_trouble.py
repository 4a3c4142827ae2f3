"""What the ledger does where its store is slow, full or broken, or more comes than it may hold."""

import asyncio
from collections.abc import Sequence

import pytest

from app.core.transaction import Row, Transaction
from app.ledger import commit, maintenance
from app.ledger.commit import Verdict
from app.ledger.reading import Unready
from app.store.base import StoreFailed, StoreRefused
from tests.support.ledger import NOW_MS, Bench, bench_test


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
