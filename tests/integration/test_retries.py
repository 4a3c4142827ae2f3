"""Retries while the process is killed again and again: each key has one effect and one answer."""

import asyncio
import os
import random
import sqlite3
import time
from collections import defaultdict
from pathlib import Path

from app.client.wire import Client, LostAnswerError, NotConnectedError, parse_address
from tests.support.process import WAIT_SECONDS, ServiceProcess

KEYS = int(os.environ.get("MILLRACE_RETRY_KEYS", "60"))
SENDERS = 4
CONNECTIONS_PER_SENDER = 4
KILLS = 4


class Sender:
    """Sends every key until it has an answer to it, over some connections, in an order of its own."""

    def __init__(self, seed: str, bodies: dict[bytes, tuple[str, bytes]]) -> None:
        self._bodies = bodies
        self._left = list(bodies)
        random.Random(seed).shuffle(self._left)
        self.answers: dict[bytes, tuple[int, bytes]] = {}

    async def run(self, url: str, answered: asyncio.Semaphore) -> None:
        """Send what is left, until the service is gone or nothing is left."""
        await asyncio.gather(*(self._send(url, answered) for _ in range(CONNECTIONS_PER_SENDER)))

    async def _send(self, url: str, answered: asyncio.Semaphore) -> None:
        async with Client(parse_address(url)) as client:
            while self._left:
                key = self._left.pop()
                path, body = self._bodies[key]
                try:
                    answer = await client.post(path, body, key=key)
                except (LostAnswerError, NotConnectedError):
                    self._left.append(key)
                    return
                self.answers[key] = answer.status, answer.body
                answered.release()


def requests(choose: random.Random) -> dict[bytes, tuple[str, bytes]]:
    now_ms = time.time_ns() // 1_000_000
    made: dict[bytes, tuple[str, bytes]] = {}
    for number in range(KEYS):
        one = b'{"amount":%d,"timestamp":%d,"user_id":"u-%d"}' % (number + 1, now_ms, number)
        key = b"key-%d" % number
        if choose.random() < 0.3:
            made[key] = "/transactions/batch?ids=true", b"[%b,%b]" % (one, one)
        else:
            made[key] = "/transactions", one
    return made


async def send_until_killed(
    service: ServiceProcess, senders: list[Sender], url: str, kill_after: int | None
) -> None:
    answered = asyncio.Semaphore(0)
    async with asyncio.timeout(WAIT_SECONDS):
        running = asyncio.gather(*(sender.run(url, answered) for sender in senders))
        if kill_after is not None:
            for _ in range(kill_after):
                await answered.acquire()
            service.kill()
        await running


def test_a_key_sent_often_while_the_process_is_killed_has_one_effect(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    path = tmp_path / "ledger.db"
    environment = {"DATABASE_URL": f"sqlite:///{path}", "WINDOW_SECONDS": "3600"}
    bodies = requests(choose)
    senders = [Sender(f"{seed} {number}", bodies) for number in range(SENDERS)]
    # What is refused burns no key.
    with ServiceProcess(environment) as service, service.client() as client:
        for key in bodies:
            headers = {b"idempotency-key": key}
            assert client.post("/transactions", content=b"{}", headers=headers).status_code == 422
    share = KEYS * SENDERS // (KILLS + 1)
    for kill in range(KILLS + 1):
        with ServiceProcess(environment) as service:
            after = choose.randrange(share // 2, share) if kill < KILLS else None
            asyncio.run(send_until_killed(service, senders, service.serving(), after))
    answers = defaultdict(set)
    for sender in senders:
        assert sender.answers.keys() == bodies.keys()
        for key, answer in sender.answers.items():
            answers[key].add(answer)
    assert all(len(different) == 1 for different in answers.values())
    assert {status for ((status, _),) in answers.values()} == {200, 201}
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT user_id, count(*) FROM transactions GROUP BY user_id").fetchall()
    connection.close()
    expected = {
        f"u-{number}": 2 if bodies[b"key-%d" % number][0].endswith("true") else 1
        for number in range(KEYS)
    }
    assert dict(rows) == expected
    with ServiceProcess(environment) as service, service.client() as client:
        told = client.get("/stats").json()
    assert told["count"] == sum(expected.values())
    assert told["sum"] == sum((number + 1) * expected[f"u-{number}"] for number in range(KEYS))
