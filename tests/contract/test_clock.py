"""What a client sees while the wall clock jumps, or the loop stands still."""

import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from app.settings import Settings
from tests.support.thread import WAIT_SECONDS, Clock, ServiceThread, serve
from tests.support.wire import Answers

NOW_MS = 1_767_323_045_678
WINDOW_MS = 60_000
HOUR_MS = 3_600_000
# What lies more than an hour ahead of a clock that was set back is left out: the README says so.
LATEST_MS = NOW_MS + HOUR_MS - 1000
SEED = int(os.environ.get("MILLRACE_CLOCK_SEED", "20260102"))


def post(service: ServiceThread, timestamp_ms: int) -> int:
    body = {"amount": 1, "timestamp": timestamp_ms}
    return service.client.post("/transactions", json=body).status_code


def wait_until_ready(service: ServiceThread) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while (answer := service.client.get("/readyz")).status_code != 200:
        assert "clock was set back" in answer.json()["detail"]
        assert time.monotonic() < deadline


@pytest.mark.parametrize("is_durable", [False, True], ids=["memory", "sqlite"])
def test_however_the_clock_jumps_the_figures_are_those_of_the_list_or_none(
    is_durable: bool, tmp_path: Path
) -> None:
    generator = random.Random(SEED)
    url = f"sqlite:///{tmp_path}/ledger.db" if is_durable else "memory://"
    clock, kept = Clock(NOW_MS), [0]
    with serve(Settings(database_url=url), clock) as service:
        for step in range(100):
            told = f"seed {SEED}, step {step}"
            clock.now_ms = generator.choice(
                [
                    NOW_MS,
                    LATEST_MS,
                    min(clock.now_ms + 1, LATEST_MS),
                    generator.randint(NOW_MS, LATEST_MS),
                ]
            )
            wait_until_ready(service)
            answer = service.client.get("/stats")
            assert answer.status_code == 200, told
            from_ms = clock.now_ms - WINDOW_MS
            assert answer.json()["count"] == sum(each >= from_ms for each in kept), told
            timestamp_ms = clock.now_ms - generator.randint(-1000, WINDOW_MS)
            assert post(service, timestamp_ms) == 201, told
            kept.append(timestamp_ms)


def test_a_clock_that_was_set_back_refuses_before_it_answers_wrongly() -> None:
    clock = Clock(NOW_MS)
    with serve(Settings(database_url="memory://"), clock) as service:
        assert post(service, NOW_MS) == 201
        clock.now_ms += HOUR_MS
        assert service.client.get("/stats").json()["count"] == 0
        assert post(service, clock.now_ms) == 201
        clock.now_ms -= HOUR_MS
        answer = service.client.get("/stats")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert service.client.get("/livez").status_code == 200
        wait_until_ready(service)
        assert service.client.get("/stats").json()["count"] == 2


@pytest.mark.parametrize("requests", [1, 300])
def test_a_loop_that_stood_still_answers_all_that_came_meanwhile(requests: int) -> None:
    clock = Clock(NOW_MS)
    with serve(Settings(database_url="memory://"), clock) as service:
        loop = service.ledger._commit._task.get_loop()
        is_still, go_on = threading.Event(), threading.Event()

        def stand_still() -> None:
            is_still.set()
            go_on.wait(WAIT_SECONDS)

        connections = [socket.create_connection(service.address, WAIT_SECONDS) for _ in range(4)]
        # Each is known to the service before it stands still.
        for connection in connections:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        loop.call_soon_threadsafe(stand_still)
        assert is_still.wait(WAIT_SECONDS)
        body = b'{"amount":1,"timestamp":%d}' % NOW_MS
        head = b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        for connection in connections:
            connection.sendall((head + body) * requests)
        clock.now_ms += 2000
        go_on.set()
        for connection in connections:
            answers = Answers()
            while len(answers.statuses) < requests:
                answers.read(connection.recv(65_536))
            assert answers.statuses == [201] * requests
            connection.close()
        assert service.client.get("/stats").json()["count"] == requests * len(connections)
