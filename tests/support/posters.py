"""Clients of several nodes, who know at any time what the nodes must have counted and may have."""

import asyncio
import bisect
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from app.client.wire import Address, Answer, Client, LostAnswerError, NotConnectedError, parse_address

_units = itertools.count(1)


class Told(NamedTuple):
    """What a node has answered, and what it could have been."""

    counted: int
    counted_min: int
    counted_max: int
    degraded: bool
    max_lag_ms: int


class Posters:
    """Connections that post to each of these services until they are told to stop.

    `age_ms` says how long ago the next transaction happened.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        connections: int = 4,
        age_ms: Callable[[], int] = lambda: 0,
        pause_seconds: float = 0.0,
    ) -> None:
        self._addresses = [parse_address(url) for url in urls]
        self._connections = connections
        self._age_ms = age_ms
        self._pause_seconds = pause_seconds
        self._is_stopping = asyncio.Event()
        self.sent = 0
        self.sent_units = 0
        self.acknowledged_ms: list[float] = []
        """When each was acknowledged, by the wall clock."""
        self.acknowledged_units = 0
        self.lost: list[int] = []
        """The units of those of which nobody said whether they were kept."""
        self.seconds: list[float] = []
        """How long each answer took."""
        self.refusals: list[Answer] = []

    async def run(self) -> None:
        """Post until `stop`, on all of them."""
        numbers = range(self._connections)
        await asyncio.gather(*(self._post(each) for each in self._addresses for _ in numbers))

    def stop(self) -> None:
        """Send nothing more; `run` ends when all is answered."""
        self._is_stopping.set()

    async def reach(self, acknowledged: int) -> None:
        """Wait until that many have been acknowledged."""
        while len(self.acknowledged_ms) < acknowledged:
            await asyncio.sleep(0.005)

    async def _post(self, address: Address) -> None:
        async with Client(address) as client:
            while not self._is_stopping.is_set():
                units = next(_units)
                timestamp_ms = time.time_ns() // 1_000_000 - self._age_ms()
                body = b'{"amount":%d.%08d,"timestamp":%d}' % (*divmod(units, 10**8), timestamp_ms)
                began = time.monotonic()
                try:
                    if not client.connected:
                        await client.connect()
                    self.sent += 1
                    self.sent_units += units
                    answer = await client.post("/transactions", body)
                except (NotConnectedError, LostAnswerError) as error:
                    if isinstance(error, LostAnswerError):
                        self.lost.append(units)
                    await asyncio.sleep(0.02)
                    continue
                self.seconds.append(time.monotonic() - began)
                if answer.status == 201:
                    self.acknowledged_ms.append(time.time() * 1000)
                    self.acknowledged_units += units
                else:
                    self.refusals.append(answer)
                await asyncio.sleep(self._pause_seconds)

    async def ask(self, url: str) -> Told:
        """What a node has counted; the window must hold everything that was ever posted."""
        async with Client(parse_address(url)) as client:
            await client.connect()
            answer = json.loads((await client.get("/stats")).body)
        lag_ms = answer["max_lag_ms"]
        as_of_ms = _milliseconds(answer["as_of"])
        known = bisect.bisect_left(self.acknowledged_ms, as_of_ms - lag_ms - 2)
        return Told(answer["count"], known, self.sent, answer["degraded"], lag_ms)


def spread(choose: random.Random, window_ms: int) -> Callable[[], int]:
    """Ages all over a window."""
    return lambda: choose.randrange(window_ms)


def _milliseconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000
