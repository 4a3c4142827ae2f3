"""The metrics of the service as it is run, by one process and by several."""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from app.client.wire import Client, parse_address
from tests.support.ledger_file import sqlite_url
from tests.support.metrics import outcomes, requests, scrape
from tests.support.plain_http import plain_client
from tests.support.process import WAIT_SECONDS, ServiceProcess

POSTS = int(os.environ.get("MILLRACE_METRICS_POSTS", "10000"))
CONNECTIONS = 32
SEED = int(os.environ.get("MILLRACE_SEED", "0")) or random.randrange(1, 2**31)
SINGLE, FEED, BATCH = "/transactions", "/api/v1/transactions", "/transactions/batch"


class Kind(NamedTuple):
    """A request, its status, and what its transactions count as."""

    path: str
    body: object
    status: int
    outcomes: Mapping[str, int]
    key: bytes | None = None


def kinds(now_ms: int) -> list[Kind]:
    fact: dict[str, object] = {"amount": 1, "timestamp": now_ms, "user_id": "u"}
    late, ahead = {**fact, "timestamp": 1}, {**fact, "timestamp": now_ms + 3_600_000}
    item = {**fact, "idempotency_key": "item"}
    mixed = [fact, fact, fact, late, late, ahead, {}, 7, fact, item, item]
    return [
        *[Kind(SINGLE, fact, 201, {"accepted": 1})] * 20,
        Kind(SINGLE, late, 204, {"late": 1}),
        Kind(SINGLE, ahead, 422, {"rejected": 1}),
        Kind(SINGLE, {"amount": 1}, 422, {"rejected": 1}),
        Kind(SINGLE, [], 400, {"rejected": 1}),
        Kind(SINGLE, fact, 201, {"duplicate": 1}, b"key"),
        Kind(SINGLE, late, 409, {"rejected": 1}, b"key"),
        Kind(FEED, fact, 201, {"accepted": 1}),
        Kind(FEED, late, 201, {"accepted": 1}),
        Kind(FEED, {}, 422, {"rejected": 1}),
        Kind(BATCH, mixed, 200, {"accepted": 4, "late": 2, "rejected": 3, "duplicate": 2}),
        Kind(BATCH + "?atomic=true", [fact, {}], 422, {"rejected": 2}),
        Kind(BATCH, {}, 400, {"rejected": 1}),
    ]


def run(path: Path, **environment: str) -> ServiceProcess:
    return ServiceProcess({"DATABASE_URL": sqlite_url(path), "WINDOW_SECONDS": "3600", **environment})


@pytest.mark.parametrize("workers", [1, 2])
def test_after_many_posts_of_known_kinds_every_counter_is_right(tmp_path: Path, workers: int) -> None:
    known = kinds(time.time_ns() // 1_000_000)
    firsts = [
        Kind(SINGLE, known[0].body, 201, {"accepted": 1}, b"key"),
        Kind(BATCH, known[-3].body, 200, {"accepted": 5, "late": 2, "rejected": 3, "duplicate": 1}),
    ]
    chosen = random.Random(SEED).choices(known, k=POSTS)

    async def post(url: str, part: list[Kind]) -> None:
        async with Client(parse_address(url)) as client:
            for kind in part:
                body = json.dumps(kind.body).encode()
                answer = await client.post(kind.path, body, key=kind.key)
                assert answer.status == kind.status, (kind, answer, SEED)

    async def post_all(url: str) -> None:
        await post(url, firsts)
        await asyncio.gather(*(post(url, chosen[each::CONNECTIONS]) for each in range(CONNECTIONS)))

    with run(tmp_path / "ledger.db", WORKERS=str(workers)) as process:
        url = process.serving()
        asyncio.run(post_all(url))
        with plain_client(url) as client:
            found = scrape(client)
            kept = client.get("/stats").json()["count"]
    expected: Counter[str] = Counter()
    doors: Counter[str] = Counter()
    for kind in (*firsts, *chosen):
        expected.update(kind.outcomes)
        doors[f"POST {kind.path.partition('?')[0]} {kind.status}"] += 1
    assert +outcomes(found) == expected, SEED
    assert requests(found) == doors, SEED
    # What is kept of the past is in no window.
    past = sum(kind.path == FEED and kind.body == known[20].body for kind in chosen)
    assert found["millrace_window_transactions", ()] == kept == expected["accepted"] - past
    assert found["millrace_commit_batch_rows_sum", ()] == expected["accepted"]
    assert found["millrace_commit_queue_rows", ()] == 0
    assert found["millrace_event_loop_lag_seconds_count", ()] > 0
    assert found.get(("millrace_workers", ()), 1) == workers


def test_what_a_worker_had_counted_that_died_stays_and_is_counted_once(tmp_path: Path) -> None:
    with run(tmp_path / "ledger.db", WORKERS="2") as process:
        url = process.serving()
        pids = {
            event["worker"]: event["pid"]
            for event in process.events
            if event["event"] == "worker_started"
        }
        asked = 0
        for victim in pids.values():
            for _ in range(20):
                # Connections of their own, which the kernel spreads.
                with plain_client(url) as client:
                    assert client.get("/stats").status_code == 200
                    asked += 1
            with plain_client(url) as client:
                assert requests(scrape(client))["GET /stats 200"] == asked
                os.kill(victim, signal.SIGKILL)
            process.wait_for("worker_started")
            with plain_client(url) as client:
                assert requests(until_serving(client, 2))["GET /stats 200"] == asked
        with plain_client(url) as client:
            assert scrape(client)["millrace_worker_restarts_total", ()] == 2


def until_serving(
    client: httpx.Client, workers: int
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := scrape(client))["millrace_workers", ()] != workers:
        assert time.monotonic() < deadline
    return found


def test_a_worker_that_hangs_does_not_keep_anyone_from_the_others_metrics(tmp_path: Path) -> None:
    with run(tmp_path / "ledger.db", WORKERS="2") as process:
        url = process.serving()
        hung = next(event["pid"] for event in process.events if event["event"] == "worker_started")
        with plain_client(url) as first, plain_client(url) as second:
            clients = [first, second]
            for client in clients:
                before = scrape(client)
            os.kill(hung, signal.SIGSTOP)
            try:
                answered = 0
                for _ in range(20):
                    # Whoever comes to the one that hangs waits for it, as for anything else.
                    with plain_client(url) as client:
                        client.timeout = httpx.Timeout(2.0)
                        try:
                            after = scrape(client)
                        except httpx.TimeoutException:
                            continue
                        answered += 1
                        assert requests(after) >= requests(before)
                        if answered == 2:
                            break
                assert answered == 2
            finally:
                os.kill(hung, signal.SIGCONT)
