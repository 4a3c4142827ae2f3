"""Nodes as their users run them, under load, and whether they all tell the truth."""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx

from tests.support.posters import Posters
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.redis import RedisServer

Json = dict[str, Any]
NAMES = ("a", "b", "c")
SECONDS = float(os.environ.get("MILLRACE_NODES_SECONDS", "0.5"))
KILL_ROUNDS = int(os.environ.get("MILLRACE_NODES_KILL_ROUNDS", "1"))


class Node:
    """A node that may be killed and started again, on the port it had."""

    def __init__(self, name: str, redis_url: str, database_url: str) -> None:
        self.redis_url = redis_url
        self._environment = {
            "NODE_ID": name,
            "REDIS_URL": redis_url,
            "DATABASE_URL": database_url,
            "WINDOW_SECONDS": "3600",
        }
        self.process = ServiceProcess(self._environment)
        self.url = ""

    def wait(self) -> None:
        """Until it serves; from then on it keeps its port."""
        self.url = self.process.serving()
        self._environment["PORT"] = self.url.rpartition(":")[2]

    def kill(self) -> None:
        self.process.__exit__(None, None, None)

    def start(self) -> None:
        self.process = ServiceProcess(self._environment)
        self.wait()

    def stats(self) -> Json:
        return self._get("/stats")

    def health(self) -> Json:
        return self._get("/api/v1/health")

    def _get(self, path: str) -> Json:
        answer: Json = httpx.get(f"{self.url}{path}", timeout=WAIT_SECONDS).json()
        return answer


_numbers = itertools.count(1)


@contextlib.contextmanager
def nodes_of(redis: RedisServer, database_url: Callable[[str], str]) -> Iterator[list[Node]]:
    """Three of them, each on what `database_url` names for its name."""
    # A database of its own for each test.
    redis_url = redis.url.replace("/0", f"/{next(_numbers)}")
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in NAMES:
            node = Node(name, redis_url, database_url(name))
            stack.callback(node.kill)
            nodes.append(node)
        for node in nodes:
            node.wait()
        # Who has just started knows those who have told anything since.
        while any(node.stats()["nodes"] < len(nodes) for node in nodes):
            time.sleep(0.01)
        yield nodes


async def under_load(posters: Posters, body: Awaitable[None]) -> None:
    async with asyncio.timeout(60 + 2 * SECONDS):
        running = asyncio.create_task(posters.run())
        await body
        posters.stop()
        await running


async def agree(nodes: list[Node], posters: Posters, *, unknown: int = 0) -> None:
    """Wait until all nodes answer alike, and hold that against what was acknowledged."""
    count_min = len(posters.acknowledged_ms)
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        told = [node.stats() for node in nodes]
        figures = {(each["count"], each["sum"]) for each in told}
        counts = {each["count"] for each in told}
        assert max(counts) <= count_min + unknown
        if len(figures) == 1 and min(counts) >= count_min:
            break
        assert time.monotonic() < deadline, (told, count_min)
        await asyncio.sleep(0.01)
    if not unknown:
        assert [(each["count"], round(each["sum"] * 10**8)) for each in told] == [
            (count_min, posters.acknowledged_units)
        ] * len(nodes)


async def watch(nodes: list[Node], posters: Posters, seconds: float) -> None:
    """Ask all nodes without pause: never more than the truth, nor less than they say they know."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for node in nodes:
            told = await posters.ask(node.url)
            assert told.counted_min <= told.counted <= told.counted_max, told


def run_on(nodes: list[Node], body: Callable[[Posters], Awaitable[None]], **options: object) -> Posters:
    async def main() -> Posters:
        posters = Posters([node.url for node in nodes], **options)  # type: ignore[arg-type]
        await under_load(posters, body(posters))
        await agree(nodes, posters, unknown=len(posters.lost))
        return posters

    return asyncio.run(main())
