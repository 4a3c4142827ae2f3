"""Several nodes over a real Redis: the same truth on each of them, whatever becomes of one another."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ledger_file import sqlite_url
from tests.support.posters import Posters, spread
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.redis import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

SECONDS = float(os.environ.get("MILLRACE_NODES_SECONDS", "0.5"))
KILL_ROUNDS = int(os.environ.get("MILLRACE_NODES_KILL_ROUNDS", "1"))
Json = dict[str, Any]
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Node:
    """A node that may be killed and started again, over a file of its own."""

    def __init__(self, name: str, redis: RedisServer, directory: Path, number: int) -> None:
        self.number = number
        self._environment = {
            "NODE_ID": name,
            # A database of its own for each test.
            "REDIS_URL": redis.url.replace("/0", f"/{number}"),
            "DATABASE_URL": sqlite_url(directory / f"{name}.db"),
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


_numbers = iter(range(1, 16))


@contextlib.contextmanager
def nodes_of(redis: RedisServer, directory: Path) -> Iterator[list[Node]]:
    number = next(_numbers)
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in NAMES:
            node = Node(name, redis, directory, number)
            stack.callback(node.kill)
            nodes.append(node)
        for node in nodes:
            node.wait()
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


def test_all_nodes_answer_what_was_posted_to_any_of_them(redis: RedisServer, tmp_path: Path) -> None:
    with nodes_of(redis, tmp_path) as nodes:
        posters = run_on(nodes, lambda posters: watch(nodes, posters, SECONDS))
        assert not posters.refusals
        assert not posters.lost
        for node in nodes:
            told = node.stats()
            assert (told["nodes"], told["degraded"]) == (3, False)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_without_redis_transactions_are_taken_in_and_statistics_go_on(
    redis: RedisServer, tmp_path: Path, fault: str
) -> None:
    with nodes_of(redis, tmp_path) as nodes:

        async def body(posters: Posters) -> None:
            await posters.reach(100)
            redis.kill() if fault == "killed" else redis.freeze()
            try:
                while not all([(await posters.ask(node.url)).degraded for node in nodes]):
                    await asyncio.sleep(0.01)
                report = await asyncio.to_thread(nodes[0].health)
                assert report["status"] == report["dependencies"]["exchange"]["status"] == "degraded"
                await watch(nodes, posters, SECONDS)
            finally:
                redis.start() if fault == "killed" else redis.thaw()
            while any([(await posters.ask(node.url)).degraded for node in nodes]):
                await asyncio.sleep(0.01)
            await watch(nodes, posters, SECONDS / 2)
            report = await asyncio.to_thread(nodes[0].health)
            assert report["status"] == "healthy"
            assert [each["node"] for each in report["nodes"]] == ["b", "c"]

        posters = run_on(nodes, body)
        assert not posters.refusals
        assert not posters.lost


def test_a_node_that_is_killed_and_started_again_is_counted_once(
    redis: RedisServer, tmp_path: Path
) -> None:
    with nodes_of(redis, tmp_path) as nodes:

        async def body(posters: Posters) -> None:
            for number in range(KILL_ROUNDS):
                await posters.reach(len(posters.acknowledged_ms) + 200)
                node = nodes[number % len(nodes)]
                node.kill()
                await asyncio.sleep(0.2)
                # What it had acknowledged and not told yet is missing, as nobody else can have it.
                await asyncio.to_thread(node.start)
                await watch(nodes, posters, 0.5)

        run_on(nodes, body)


def test_a_node_that_takes_leave_has_told_everything(redis: RedisServer, tmp_path: Path) -> None:
    with nodes_of(redis, tmp_path) as nodes:

        async def body(posters: Posters) -> None:
            await posters.reach(200)
            nodes[2].process.terminate()
            assert await asyncio.to_thread(nodes[2].process.exit_status) == 0

        async def main() -> None:
            posters = Posters([node.url for node in nodes])
            await under_load(posters, body(posters))
            # What it never answered may have been kept, and is known to whoever has it.
            await agree(nodes[:2], posters, unknown=len(posters.lost))
            told = nodes[0].stats()
            assert (told["nodes"], told["degraded"]) == (2, False)

        asyncio.run(main())


def test_a_node_that_is_gone_is_missed_and_what_it_told_stays(
    redis: RedisServer, tmp_path: Path
) -> None:
    with nodes_of(redis, tmp_path) as nodes:

        async def body(posters: Posters) -> None:
            await posters.reach(300)

        run_on(nodes, body)
        count = nodes[0].stats()["count"]
        nodes[2].kill()
        while (told := nodes[0].stats())["nodes"] == 3:
            assert told["count"] == count
            time.sleep(0.05)
        assert (told["nodes"], told["count"], told["degraded"]) == (2, count, True)
        nodes[1].process.terminate()
        assert nodes[1].process.exit_status() == 0
        while (told := nodes[0].stats())["nodes"] == 2:
            time.sleep(0.01)
        assert (told["nodes"], told["count"]) == (1, count)
        late = Node("d", redis, tmp_path, nodes[0].number)
        try:
            late.wait()
            assert late.stats()["count"] == count
        finally:
            late.kill()


@pytest.mark.parametrize("load", ["idle", "now", "spread"])
def test_redis_has_a_bounded_number_of_commands_and_bytes_to_bear(
    redis: RedisServer, tmp_path: Path, load: str
) -> None:
    """A hundred commands and a megabyte a second for each node, whatever is posted."""
    with nodes_of(redis, tmp_path) as nodes:

        async def measure() -> None:
            before, began = redis.work(), time.monotonic()
            await asyncio.sleep(max(SECONDS, 1.0))
            seconds = time.monotonic() - began
            per_second = {
                name: (count - before[name]) / seconds / len(nodes)
                for name, count in redis.work().items()
            }
            print(load, per_second)
            assert 20 < per_second["commands"] <= 100
            assert per_second["bytes"] <= 1_000_000

        async def body(posters: Posters) -> None:
            await posters.reach(1000)
            await measure()

        if load == "idle":
            asyncio.run(measure())
        else:
            seed = random.SystemRandom().randrange(2**32)
            print(f"seed {seed}")
            age_ms = spread(random.Random(seed), 55_000) if load == "spread" else int
            run_on(nodes, body, age_ms=age_ms, connections=8)
