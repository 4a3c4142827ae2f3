"""A ledger that is open, over a store that can be held up and told to fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from app.core.idempotency import Record
from app.core.identifier import IdentifierSource
from app.core.transaction import Row, Transaction
from app.core.window import Shape
from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger
from app.store.base import MemoryStore
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
