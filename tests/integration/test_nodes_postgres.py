"""Several nodes over one PostgreSQL and a real Redis: what is kept is one, and so is what is counted."""

import asyncio
import random
import uuid

import httpx

from tests.support.cluster import KILL_ROUNDS, Node, nodes_of, run_on, under_load
from tests.support.posters import Posters
from tests.support.postgres import needs_postgres, new_database_url, rows_in_database
from tests.support.redis import RedisServer, needs_redis
from tests.support.redis import redis_server as redis

pytestmark = [needs_redis, needs_postgres]
__all__ = ["redis"]


def test_nodes_come_and_go_under_load_and_every_row_is_counted_once(redis: RedisServer) -> None:
    url = new_database_url()
    with nodes_of(redis, lambda _: url) as nodes:

        async def body(posters: Posters) -> None:
            for number in range(KILL_ROUNDS):
                await posters.reach(len(posters.acknowledged_ms) + 200)
                node = nodes[number % len(nodes)]
                node.kill()
                await asyncio.sleep(0.2)
                await asyncio.to_thread(node.start)
                await asyncio.sleep(0.5)

        run_on(nodes, body)
        # What was in flight when a node was killed may have been kept, and then is counted.
        rows = rows_in_database(url)
        assert {node.stats()["count"] for node in nodes} == {len(rows)}
        late = Node("d", nodes[0].redis_url, url)
        try:
            late.wait()
            assert late.stats()["count"] == len(rows)
        finally:
            late.kill()


def test_a_node_that_never_returns_is_counted_to_the_last_row(redis: RedisServer) -> None:
    """It has acknowledged what it had not told yet: the others read that from the database."""
    url = new_database_url()
    with nodes_of(redis, lambda _: url) as nodes:

        async def main() -> None:
            posters = Posters([nodes[2].url], connections=16)
            running = asyncio.create_task(posters.run())
            await posters.reach(500)
            nodes[2].kill()
            posters.stop()
            await running
            rows = rows_in_database(url)
            assert len(rows) >= len(posters.acknowledged_ms)
            async with asyncio.timeout(30):
                while [node.stats()["count"] for node in nodes[:2]] != [len(rows)] * 2:
                    await asyncio.sleep(0.05)
                while nodes[0].stats()["nodes"] != 2:
                    await asyncio.sleep(0.05)
            told = nodes[0].stats()
            assert (told["nodes"], told["degraded"]) == (2, False)

        asyncio.run(main())


def test_a_deletion_is_one_for_all_nodes(redis: RedisServer) -> None:
    url = new_database_url()
    with nodes_of(redis, lambda _: url) as nodes:

        async def body(posters: Posters) -> None:
            await posters.reach(200)
            for node in nodes:
                answer = await asyncio.to_thread(httpx.delete, f"{node.url}/transactions", timeout=30)
                assert answer.status_code == 204
                await posters.reach(len(posters.acknowledged_ms) + 100)

        async def main() -> None:
            posters = Posters([node.url for node in nodes])
            await under_load(posters, body(posters))
            rows = rows_in_database(url)
            assert 0 < len(rows) < len(posters.acknowledged_ms)
            async with asyncio.timeout(30):
                while [node.stats()["count"] for node in nodes] != [len(rows)] * 3:
                    await asyncio.sleep(0.02)

        asyncio.run(main())


def test_a_key_is_one_for_all_nodes_and_a_users_transactions_come_in_order(redis: RedisServer) -> None:
    url = new_database_url()
    with nodes_of(redis, lambda _: url) as nodes, httpx.Client(timeout=30) as client:
        key = {"Idempotency-Key": str(uuid.uuid4())}
        body = {"amount": 1, "user_id": "u-1"}
        answers = [
            client.post(f"{node.url}/api/v1/transactions", json=body, headers=key) for node in nodes
        ]
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.text for answer in answers}) == 1
        again = client.post(
            f"{nodes[1].url}/api/v1/transactions", json={**body, "amount": 2}, headers=key
        )
        assert again.status_code == 409
        choose = random.Random(1)
        ids = [answers[0].json()["id"]]
        for number in range(30):
            node = choose.choice(nodes)
            entry = {"amount": number, "user_id": "u-1"}
            ids.append(client.post(f"{node.url}/api/v1/transactions", json=entry).json()["id"])
        for node in nodes:
            page = client.get(f"{node.url}/api/v1/transactions?user_id=u-1&limit=100").json()
            assert [item["id"] for item in page["items"]] == ids[::-1]
            of_user = client.get(f"{node.url}/stats?user_id=u-1").json()
            assert (of_user["count"], of_user["sum"]) == (31, 1 + sum(range(30)))
            assert client.get(f"{node.url}/stats?user_id=u-2").json()["count"] == 0
            assert client.get(f"{node.url}/stats?user%5Fid=u-1&currency=EUR").json()["count"] == 0
        first = client.get(f"{nodes[0].url}/api/v1/transactions?user_id=u-1&limit=10").json()
        rest = client.get(
            f"{nodes[1].url}/api/v1/transactions?limit=100&cursor={first['next_cursor']}"
        ).json()
        assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]


def test_two_processes_of_one_name_are_one_too_many(redis: RedisServer) -> None:
    url = new_database_url()
    with nodes_of(redis, lambda _: url) as nodes:
        another = Node("a", nodes[0].redis_url, url)
        assert another.process.exit_status() == 1
        assert "NODE_ID" in another.process.complaint()
        another.kill()
