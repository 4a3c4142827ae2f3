"""Several nodes over a real Redis: the same truth on each of them, whatever becomes of one another."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import KILL_ROUNDS, SECONDS, Node, agree, nodes_of, run_on, under_load, watch
from tests.support.ledger_file import sqlite_url
from tests.support.metrics import scrape
from tests.support.plain_http import plain_client
from tests.support.posters import Posters, spread
from tests.support.redis import RedisServer, needs_redis
from tests.support.redis import redis_server as redis

pytestmark = needs_redis
__all__ = ["redis"]


def on_files(directory: Path) -> Callable[[str], str]:
    """A file of its own for each."""
    return lambda name: sqlite_url(directory / f"{name}.db")


def test_all_nodes_answer_what_was_posted_to_any_of_them(redis: RedisServer, tmp_path: Path) -> None:
    with nodes_of(redis, on_files(tmp_path)) as nodes:
        posters = run_on(nodes, lambda posters: watch(nodes, posters, SECONDS))
        assert not posters.refusals
        assert not posters.lost
        for node in nodes:
            told = node.stats()
            assert (told["nodes"], told["degraded"]) == (3, False)
            with plain_client(node.url) as client:
                found = scrape(client)
            assert found["millrace_nodes", ()] == 3
            assert found["millrace_exchange_state", (("state", "healthy"),)] == 1
            assert found["millrace_exchange_state", (("state", "degraded"),)] == 0
            others = {
                labels: value for (name, labels), value in found.items() if name.endswith("_healthy")
            }
            assert others == {
                (("node", name),): 1 for name in {"a", "b", "c"} - {"abc"[nodes.index(node)]}
            }
            assert 0 <= found["millrace_nodes_lag_seconds", ()] < 60


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_without_redis_transactions_are_taken_in_and_statistics_go_on(
    redis: RedisServer, tmp_path: Path, fault: str
) -> None:
    with nodes_of(redis, on_files(tmp_path)) as nodes:

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
    with nodes_of(redis, on_files(tmp_path)) as nodes:

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
    with nodes_of(redis, on_files(tmp_path)) as nodes:

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
    with nodes_of(redis, on_files(tmp_path)) as nodes:

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
        late = Node("d", nodes[0].redis_url, sqlite_url(tmp_path / "d.db"))
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
    with nodes_of(redis, on_files(tmp_path)) as nodes:

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
