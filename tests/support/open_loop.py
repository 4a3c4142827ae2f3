"""Requests sent when they are due, whether or not earlier ones were answered.

A connection carries one request at a time, and there are enough of them. So a service that falls
behind is not spared, and a wait is counted from when the request was due.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, cast

import httptools

TICK_SECONDS = 0.002


class Kind(Enum):
    """What is sent."""

    POST = "one transaction"
    BATCH = "a batch"
    STATS = "statistics"
    LIVE = "a probe"


BATCH_ITEMS = 100
ROWS = {Kind.POST: 1, Kind.BATCH: BATCH_ITEMS, Kind.STATS: 0, Kind.LIVE: 0}


class Sample(NamedTuple):
    """One answer: to what, when it was due, after how many seconds it was there, and what it said."""

    kind: Kind
    due: float
    seconds: float
    status: int
    may_retry: bool


def request(kind: Kind) -> bytes:
    """The bytes of a request that is sent now."""
    if kind is Kind.STATS:
        return b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n"
    if kind is Kind.LIVE:
        return b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    item = b'{"amount":1.25,"timestamp":%d}' % (time.time_ns() // 1_000_000)
    if kind is Kind.POST:
        return b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
            len(item),
            item,
        )
    body = b"[%b]" % b",".join([item] * BATCH_ITEMS)
    return b"POST /transactions/batch HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


class _Connection(asyncio.Protocol):
    def __init__(self, owner: "OpenLoop") -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._under_way: tuple[Kind, float] | None = None
        self._may_retry = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # A uvloop transport is no subclass.

    def send(self, kind: Kind, due: float) -> None:
        self._under_way, self._may_retry = (kind, due), False
        self.transport.write(request(kind))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._may_retry |= name.lower() == b"retry-after"

    def on_message_complete(self) -> None:
        assert self._under_way is not None
        kind, due = self._under_way
        self._under_way = None
        seconds = time.monotonic() - due
        status = self._parser.get_status_code()
        self._owner.samples.append(Sample(kind, due, seconds, status, self._may_retry))
        self._owner.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._under_way is not None:
            self._owner.lost += 1
        self._owner.forget(self)


class OpenLoop:
    """Keeps the connections, and what was answered on them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connections: set[_Connection] = set()
        self.samples: list[Sample] = []
        self.idle: deque[_Connection] = deque()
        self.lost = 0
        self.unsent = 0
        """Requests that were due while every connection was busy: the load was less than asked for."""

    async def run(self, rates: Mapping[Kind, float], seconds: float) -> None:
        """Send each kind at its rate a second for so long."""
        started = time.monotonic()
        sent = dict.fromkeys(rates, 0)
        while (elapsed := time.monotonic() - started) < seconds:
            for kind, rate in rates.items():
                while sent[kind] < rate * elapsed:
                    self._send(kind, started + sent[kind] / rate)
                    sent[kind] += 1
            await asyncio.sleep(TICK_SECONDS)

    async def settle(self) -> None:
        """Wait for every answer that is still to come."""
        while len(self.idle) < len(self._connections):
            await asyncio.sleep(TICK_SECONDS)

    async def closed(self, kind: Kind, workers: int, seconds: float) -> float:
        """Rows a second that are taken when so many wait for an answer before they send again."""
        loop = asyncio.get_running_loop()
        await self.grow(workers)
        started, before = time.monotonic(), len(self.samples)
        ends = loop.time() + seconds
        while loop.time() < ends:
            while self.idle and len(self._connections) - len(self.idle) < workers:
                self.idle.popleft().send(kind, time.monotonic())
            await asyncio.sleep(0)
        rate = rows_taken(self.samples[before:]) / (time.monotonic() - started)
        await self.settle()
        return rate

    async def grow(self, connections: int) -> None:
        """Have at least so many connections."""
        loop = asyncio.get_running_loop()
        while len(self._connections) < connections:
            _, connection = await loop.create_connection(lambda: _Connection(self), *self._address)
            self._connections.add(connection)
            self.idle.append(connection)

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._connections):
            connection.transport.close()

    def forget(self, connection: _Connection) -> None:
        """Use a connection no more that is gone."""
        self._connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def _send(self, kind: Kind, due: float) -> None:
        if self.idle:
            self.idle.popleft().send(kind, due)
        else:
            self.unsent += 1


def rows_taken(samples: list[Sample]) -> int:
    """How many transactions were accepted."""
    return sum(ROWS[each.kind] for each in samples if each.status in (200, 201))


def percentile(seconds: list[float], share: float) -> float:
    """The nearest rank: so great a share lies at or below it."""
    return sorted(seconds)[min(int(len(seconds) * share), len(seconds) - 1)]
