"""Clients that post without pause, and remember what they were told of each transaction."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from app.client.wire import Answer, Client, LostAnswerError, NotConnectedError, parse_address
from tests.support.ledger_file import Amounts
from tests.support.process import WAIT_SECONDS

# No amount is posted twice, so a row that nobody acknowledged tells which request it came with.
_units = itertools.count(1)


class Load:
    """Connections that post one request after another until the service is gone.

    The first `batch_connections` of them post batches of `BATCH_ITEMS`, the others one at a time.
    """

    BATCH_ITEMS = 20

    def __init__(
        self,
        url: str,
        *,
        connections: int = 32,
        batch_connections: int = 0,
        refusal_pause_seconds: float = 0.0,
    ) -> None:
        self.url = url
        self._address = parse_address(url)
        self._connections = connections
        self._batch_connections = batch_connections
        self._refusal_pause_seconds = refusal_pause_seconds
        self.acknowledged: Amounts = {}
        """The amount of each transaction that was answered 201, by its id."""
        self.moments: dict[str, tuple[float, float]] = {}
        """When each of those was sent, and when its answer was there."""
        self.refused: list[list[int]] = []
        """The amounts of each request that was answered: nothing of it was kept."""
        self.undecided: list[list[int]] = []
        """The amounts of each request of which nobody said whether it was kept."""
        self.codes: dict[str, float] = {}
        """The code of every refusal, and when it was first heard."""
        self.grown = asyncio.Event()
        self.is_over = False
        """Whether nothing more is to be posted."""

    @property
    def rows_at_once_max(self) -> int:
        """How many transactions may be under way at one time."""
        return self._connections + self._batch_connections * (self.BATCH_ITEMS - 1)

    async def run(self) -> None:
        """Post until the service is gone, or it is over."""
        await asyncio.gather(*(self._post(number) for number in range(self._connections)))

    async def reach(self, acknowledged: int) -> None:
        """Wait until that many have been acknowledged."""
        while len(self.acknowledged) < acknowledged:
            self.grown.clear()
            await self.grown.wait()

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Post meanwhile, and behind it until the service is gone; bounded in time."""
        async with asyncio.timeout(WAIT_SECONDS):
            running = asyncio.create_task(self.run())
            yield
            await running

    def run_until(self, acknowledged: int, end: Callable[[], None]) -> None:
        """Post until so many are acknowledged, then `end` the service."""

        async def run() -> None:
            async with self.under_way():
                await self.reach(acknowledged)
                end()

        asyncio.run(run())

    async def _post(self, number: int) -> None:
        is_batch = number < self._batch_connections
        path = "/transactions/batch?ids=true" if is_batch else "/transactions"
        async with Client(self._address) as client:
            while not self.is_over:
                units = list(itertools.islice(_units, self.BATCH_ITEMS if is_batch else 1))
                timestamp_ms = time.time_ns() // 1_000_000
                items = [
                    b'{"amount":%d.%08d,"timestamp":%d}' % (*divmod(each, 10**8), timestamp_ms)
                    for each in units
                ]
                body = b"[%b]" % b",".join(items) if is_batch else items[0]
                sent = time.monotonic()
                try:
                    if not client.connected:
                        await client.connect()
                    answer = await client.post(path, body)
                except NotConnectedError:
                    return
                except LostAnswerError:
                    self.undecided.append(units)
                    return
                if not self._note(answer, units, sent):
                    await asyncio.sleep(self._refusal_pause_seconds)

    def _note(self, answer: Answer, units: list[int], sent: float) -> bool:
        """Remember an answer; whether it was an acknowledgement."""
        told = msgspec.json.decode(answer.body)
        if answer.status in (200, 201):
            ids = told["ids"] if answer.status == 200 else [told["id"]]
            found = {each.replace("-", ""): amount for each, amount in zip(ids, units, strict=True)}
            assert found.keys().isdisjoint(self.acknowledged), "an id was given twice"
            self.acknowledged |= found
            self.moments |= dict.fromkeys(found, (sent, time.monotonic()))
            self.grown.set()
            return True
        assert answer.status == 503, answer
        self.codes.setdefault(told["code"], time.monotonic())
        is_known = "is not known" not in told["detail"]
        (self.refused if is_known else self.undecided).append(units)
        return False

    def check(self, rows: Amounts) -> None:
        """Hold rows that were found against what was said of them."""
        assert {key: rows.get(key) for key in self.acknowledged} == self.acknowledged
        kept = set(rows.values())
        assert not any(units in kept for request in self.refused for units in request)
        for request in self.undecided:
            assert len({units in kept for units in request}) == 1, "a request was kept in part"

    def unexplained(self, rows: Amounts) -> Amounts:
        """Rows that are neither acknowledged nor of a request whose fate is open."""
        undecided = {units for request in self.undecided for units in request}
        return {
            key: units
            for key, units in rows.items()
            if key not in self.acknowledged and units not in undecided
        }
