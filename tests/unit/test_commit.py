"""What group commit does where another process takes a key, and where the store hangs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from app.core.idempotency import Key, KeyRoute, Record
from app.core.transaction import Row, Transaction
from app.ledger import commit
from app.ledger.commit import GroupCommit, Verdict
from app.store.base import KeysTaken, MemoryStore

KEY = Key.of(KeyRoute.TRANSACTION, None, b"key", b"content")
RECORD = Record.of(KEY, b"the other's answer", 0)


def row(number: int) -> Row:
    return Row(number, Transaction(1, 1000, "EUR", None))


class SharedStore(MemoryStore):
    """A store that other processes write to: `intrusions` happen between a look-up and an append."""

    def __init__(self) -> None:
        super().__init__()
        self.intrusions: list[Callable[[], Awaitable[None]]] = []
        self.kept: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        await self.gate.wait()
        if self.intrusions:
            await self.intrusions.pop(0)()
            raise KeysTaken("taken meanwhile")
        self.kept += [each.id for each in rows]
        return await super().append(rows, records)


class Request:
    """Keeps a row, unless its key stands for something."""

    digests: Sequence[bytes] = [KEY.digest]
    weight = 1

    def __init__(self, number: int) -> None:
        self._row = row(number)
        self.known: list[bool] = []
        self.verdicts: list[Verdict] = []

    def settle(self, known: Mapping[bytes, Record]) -> tuple[Sequence[Row], Sequence[Record]]:
        self.known.append(KEY.digest in known)
        return ((), ()) if self.known[-1] else ([self._row], [Record.of(KEY, b"ours", 0)])

    def done(self, verdict: Verdict, rows: Sequence[Row]) -> None:
        self.verdicts.append(verdict)


class Bench:
    def __init__(self) -> None:
        self.store = SharedStore()
        self.counted: list[int] = []
        self.verdicts: list[Verdict] = []
        self.commit = GroupCommit(self.store, self._count, pytest.fail)

    def submit(self, number: int) -> None:
        self.commit.submit([row(number)], lambda verdict, _: self.verdicts.append(verdict))

    def _count(self, rows: Sequence[Row], epoch: int) -> None:
        self.counted += [each.id for each in rows]


def bench_test(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            bench = Bench()
            await body(bench)
            await bench.commit.close()

    asyncio.run(main())


def test_where_a_key_was_taken_meanwhile_everything_is_settled_once_more() -> None:
    async def body(bench: Bench) -> None:
        request = Request(2)

        async def intrude() -> None:
            assert (request.verdicts, bench.verdicts) == ([], [])
            await MemoryStore.append(bench.store, [], [RECORD])

        bench.store.intrusions = [intrude]
        bench.submit(1)
        bench.commit.submit_keyed(request)
        while not request.verdicts:
            await asyncio.sleep(0)
        assert request.known == [False, True]
        assert (bench.verdicts, request.verdicts) == ([Verdict.ACCEPTED], [Verdict.ACCEPTED])
        assert bench.store.kept == bench.counted == [1]
        assert not bench.commit.is_refusing

    bench_test(body)


def test_keys_that_are_taken_again_and_again_are_refused_in_the_end() -> None:
    async def body(bench: Bench) -> None:
        async def intrude() -> None:
            pass

        bench.store.intrusions = [intrude] * 100
        bench.submit(1)
        while not bench.verdicts:
            await asyncio.sleep(0)
        assert bench.verdicts == [Verdict.REFUSED]
        assert bench.store.kept == bench.counted == []
        assert 1 < 100 - len(bench.store.intrusions) < 10

    bench_test(body)


def test_while_a_commit_hangs_nothing_more_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr(commit, "monotonic", lambda: seconds)

    async def body(bench: Bench) -> None:
        nonlocal seconds
        bench.store.gate.clear()
        bench.submit(1)
        await asyncio.sleep(0)
        seconds += commit.COMMIT_SECONDS_MAX
        assert not bench.commit.is_full
        seconds += 0.001
        assert bench.commit.is_full
        bench.store.gate.set()
        while not bench.verdicts:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not bench.commit.is_full
        seconds += 100
        assert not bench.commit.is_full

    bench_test(body)
