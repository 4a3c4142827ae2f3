"""Several processes behind one address, as their clients and their operator meet them."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.client.wire import Client, parse_address
from app.core.identifier import parse_identifier
from app.main import build_back
from app.server.listen import listen
from app.server.workers import Workers
from app.settings import Settings
from tests.support.ledger_file import Figures, figures_of, rows_in, sqlite_url
from tests.support.load import Load
from tests.support.process import WAIT_SECONDS, ServiceProcess

POSTS = int(os.environ.get("MILLRACE_WORKERS_POSTS", "2000"))
KILLS = int(os.environ.get("MILLRACE_WORKERS_KILLS", "2"))
CONNECTIONS = 32
# Of so many connections that the kernel spreads, hardly ever all go to one of two sockets.
FRESH = 50
ROUNDS = 25


class Told(NamedTuple):
    """An answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body, parse_float=Decimal)

    @property
    def figures(self) -> Figures:
        assert self.status == 200, self.body
        told = self.json
        return Figures(told["count"], *(int(told[name] * 10**8) for name in ("sum", "min", "max")))


class Service:
    """Two fronts and their back, keeping their rows in a file."""

    def __init__(self, path: Path, **environment: str) -> None:
        settings = {"DATABASE_URL": sqlite_url(path), "WINDOW_SECONDS": "3600", "WORKERS": "2"}
        self.process = ServiceProcess({**settings, **environment})
        self.url = self.process.serving()
        self.address = parse_address(self.url)

    def ask(self, method: str, target: str, body: object = None, **headers: str) -> Told:
        """What a client is told that has just connected."""
        connection = http.client.HTTPConnection(
            self.address.host, self.address.port, timeout=WAIT_SECONDS
        )
        with contextlib.closing(connection):
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            kind = {} if content is None else {"content-type": "application/json"}
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, content, {**kind, **named})
            answer = connection.getresponse()
            return Told(answer.status, answer.read())

    def post(self, amount: object = 1, **headers: str) -> Told:
        return self.ask("POST", "/transactions", transaction(amount), **headers)

    def fronts(self) -> list[int]:
        """The processes that were started last, in the order of their sockets."""
        started = {
            event["worker"]: event["pid"]
            for event in self.process.events
            if event["event"] == "worker_started"
        }
        return [started[index] for index in sorted(started)]


def transaction(amount: object = 1, **fields: object) -> dict[str, object]:
    return {"amount": amount, "timestamp": time.time_ns() // 1_000_000, **fields}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("workers") / "ledger.db")
    with service.process:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    """The service with nothing in it."""
    assert running.ask("DELETE", "/transactions").status == 204
    return running


@contextlib.contextmanager
def started(path: Path, **environment: str) -> Iterator[Service]:
    service = Service(path, **environment)
    with service.process:
        yield service


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_both_serve(service: Service) -> None:
    ticks = {pid: cpu_ticks(pid) for pid in service.fronts()}
    while any(cpu_ticks(pid) == before for pid, before in ticks.items()):
        service.ask("GET", "/health")


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_what_many_connections_posted_is_counted_behind_every_door(service: Service) -> None:
    amounts = [number * 7 + 1 for number in range(POSTS)]

    async def post(part: list[int]) -> None:
        async with Client(service.address) as client:
            await client.connect()
            for amount in part:
                answer = await client.post("/transactions", json.dumps(transaction(amount)).encode())
                assert answer.status == 201

    async def post_all() -> None:
        await asyncio.gather(*(post(amounts[number::CONNECTIONS]) for number in range(CONNECTIONS)))

    asyncio.run(post_all())
    expected = figures_of({str(amount): amount * 10**8 for amount in amounts})
    assert [service.ask("GET", "/stats").figures for _ in range(FRESH)] == [expected] * FRESH


def test_who_was_told_that_it_is_kept_finds_it_counted_behind_any_door(service: Service) -> None:
    for count in range(1, ROUNDS + 1):
        assert service.post().status == 201
        assert [service.ask("GET", "/stats").json["count"] for _ in range(6)] == [count] * 6


def test_what_is_deleted_is_gone_behind_every_door_and_what_comes_later_stays(service: Service) -> None:
    for _ in range(ROUNDS):
        assert service.post(3).status == 201
        assert service.ask("DELETE", "/transactions").status == 204
        assert [service.ask("GET", "/stats").json["count"] for _ in range(4)] == [0] * 4
        assert service.post(2).status == 201
        assert [service.ask("GET", "/stats").json["sum"] for _ in range(4)] == [2] * 4
        assert service.ask("DELETE", "/transactions").status == 204


def test_a_key_has_one_effect_and_one_answer_behind_every_door(service: Service) -> None:
    body = json.dumps(transaction(5)).encode()
    told = [service.ask("POST", "/transactions", body, idempotency_key="k") for _ in range(FRESH)]
    assert told == [told[0]] * FRESH
    assert told[0].status == 201
    assert service.ask("GET", "/stats").json["count"] == 1
    assert service.post(6, idempotency_key="k").json["code"] == "idempotency_conflict"


def test_every_door_is_behind_every_front(service: Service) -> None:
    for number in range(8):
        batch = [transaction(1, user_id=f"u-{number}"), transaction("one")]
        told = service.ask("POST", "/transactions/batch?ids=true", batch)
        assert (told.json["accepted"], told.json["rejected"]) == (1, 1)
        told = service.ask("POST", "/api/v1/transactions", transaction(2, user_id=f"u-{number}"))
        assert told.status == 201
        identifier = told.json["id"]
        assert parse_identifier(identifier) is not None
        assert service.ask("GET", f"/transactions/{identifier}").json["id"] == identifier
        assert (
            service.ask("GET", f"/api/v1/transactions?user_id=u-{number}").json["items"][0]["id"]
            == identifier
        )
        assert service.ask("GET", f"/stats?user_id=u-{number}").json["sum"] == 3
        assert service.ask("GET", f"/stats?%75ser_id=u-{number}&window=1m").json["count"] == 2
        assert service.ask("GET", "/stats?window=1m").json["count"] == 2 * (number + 1)
        assert service.ask("GET", "/readyz").status == 200
        assert service.ask("GET", "/livez").body == b'{"status":"ok"}'
        assert service.ask("GET", "/stats?nothing=1").json["code"] == "invalid_parameter"
        assert service.ask("GET", "/transactions/none").json["code"] == "malformed_identifier"


def test_a_batch_of_the_largest_kind_passes(service: Service) -> None:
    now_ms = time.time_ns() // 1_000_000
    pad = " " * 780
    items = ",".join(f'{pad}{{"amount":1,"timestamp":{now_ms - number}}}' for number in range(9_900))
    told = service.ask("POST", "/transactions/batch?ids=true", f"[{items}]".encode())
    assert len(items) > 8_000_000
    assert told.json["accepted"] == len(set(told.json["ids"])) == 9_900
    assert [service.ask("GET", "/stats").json["count"] for _ in range(4)] == [9_900] * 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_front_that_ends_is_started_again_and_nothing_is_lost_or_counted_twice(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "ledger.db"
    loads: list[Load] = []
    with started(path) as service:

        async def end_under_load(front: int) -> None:
            load = Load(service.url, connections=CONNECTIONS, batch_connections=2)
            loads.append(load)
            async with asyncio.timeout(WAIT_SECONDS):
                running = asyncio.create_task(load.run())
                await load.reach(300)
                os.kill(front, number)
                await asyncio.to_thread(service.process.wait_for, "worker_started")
                await load.reach(len(load.acknowledged) + 300)
                load.is_over = True
                await running

        for round_number in range(KILLS):
            asyncio.run(end_under_load(service.fronts()[round_number % 2]))
        told = {service.ask("GET", "/stats").figures for _ in range(FRESH)}
        died = [event for event in service.process.events if event["event"] == "worker_died"]
        assert len(died) == KILLS
        assert {event["level"] for event in died} == {"warning"}
        service.process.terminate()
        assert service.process.exit_status() == 0
        assert service.process.complaint() == ""
    rows = rows_in(path)
    assert told == {figures_of(rows)}
    acknowledged = {key: units for load in loads for key, units in load.acknowledged.items()}
    assert {key: rows.get(key) for key in acknowledged} == acknowledged


def test_a_front_that_hangs_is_replaced_before_it_can_answer_what_is_not_true_any_more(
    tmp_path: Path,
) -> None:
    with started(tmp_path / "ledger.db") as service:
        hanging = service.fronts()[0]
        os.kill(hanging, signal.SIGSTOP)
        other = connection_to_the_other(service)
        count = 0
        # Each has ten thousand slots to tell, until the pipe of who does not read has room no more.
        now_ms = time.time_ns() // 1_000_000
        while not any(event["event"] == "worker_died" for event in service.process.events):
            items = [{"amount": 1, "timestamp": now_ms - 60 * slot} for slot in range(10_000)]
            other.request("POST", "/transactions/batch", json.dumps(items).encode())
            answer = other.getresponse()
            assert json.loads(answer.read())["accepted"] == 10_000
            count += 10_000
            other.request("GET", "/stats")
            assert json.loads(other.getresponse().read())["count"] == count
        other.close()
        died = service.process.wait_for("worker_died")
        assert (died["worker"], died["pid"]) == (0, hanging)
        assert died["reason"] == "it does not read"
        service.process.wait_for("worker_started")
        assert not is_alive(hanging)
        assert {service.ask("GET", "/stats").json["count"] for _ in range(FRESH)} == {count}


def test_a_front_that_is_slow_to_start_keeps_no_answers_back(service: Service) -> None:
    ended = service.fronts()[0]
    os.kill(ended, signal.SIGSTOP)
    with contextlib.closing(connection_to_the_other(service)) as other:
        os.kill(ended, signal.SIGKILL)
        wait_until(lambda: service.fronts()[0] != ended)
        starting = service.fronts()[0]
        os.kill(starting, signal.SIGSTOP)
        # More than its pipe has room for, while it still reads its modules.
        now_ms = time.time_ns() // 1_000_000
        items = [{"amount": 1, "timestamp": now_ms - 60 * slot} for slot in range(10_000)]
        body = json.dumps(items).encode()
        for _ in range(6):
            other.request("POST", "/transactions/batch", body)
            assert json.loads(other.getresponse().read())["accepted"] == 10_000
        os.kill(starting, signal.SIGCONT)
    assert {service.ask("GET", "/stats").json["count"] for _ in range(FRESH)} == {60_000}
    assert service.fronts()[0] == starting


def connection_to_the_other(service: Service) -> http.client.HTTPConnection:
    """A connection that is answered, as not all go to the front that hangs."""
    while True:
        connection = http.client.HTTPConnection(service.address.host, service.address.port, timeout=0.5)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
        except TimeoutError:
            connection.close()
        else:
            assert connection.sock is not None
            connection.sock.settimeout(WAIT_SECONDS)
            return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_under_load_answers_all_it_keeps_and_exits_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "ledger.db"
    with started(path) as service:
        load = Load(service.url, connections=CONNECTIONS, batch_connections=2)

        async def end_under_load() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                running = asyncio.create_task(load.run())
                await load.reach(500)
                # As a terminal does: to all it has started, or to the one that a platform knows.
                os.killpg(service.process.pid, number)
                await running

        asyncio.run(end_under_load())
        assert service.process.exit_status() == 0
        assert service.process.complaint() == ""
        names = [event["event"] for event in service.process.events]
        fronts = service.fronts()
    assert names == [
        *("starting", "window_read_back", "worker_started", "worker_started", "serving"),
        *("draining", "stopped"),
    ]
    assert rows_in(path) == load.acknowledged
    assert not path.with_name("ledger.db-wal").exists()
    assert not any(map(is_alive, fronts))


def test_fronts_do_not_outlive_their_back(tmp_path: Path) -> None:
    with started(tmp_path / "ledger.db") as service:
        os.kill(service.process.pid, signal.SIGKILL)
        fronts = service.fronts()
        wait_until(lambda: not any(map(is_alive, fronts)))
        with pytest.raises(ConnectionRefusedError):
            service.ask("GET", "/health")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_service_on_the_same_port_is_refused(
    service: Service, workers: str, tmp_path: Path
) -> None:
    environment = {
        "PORT": str(service.address.port),
        "WORKERS": workers,
        "DATABASE_URL": sqlite_url(tmp_path / "other.db"),
    }
    with ServiceProcess(environment) as second:
        assert second.exit_status() == 1
        port = service.address.port
        told = f"millrace: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
        assert second.complaint() == told


def test_connections_wait_while_their_front_is_started_again(service: Service) -> None:
    for front in service.fronts():
        os.kill(front, signal.SIGKILL)
    # Nobody serves now.
    assert {service.ask("GET", "/health").status for _ in range(8)} == {200}


def test_connections_past_the_last_are_told_so_by_each(tmp_path: Path) -> None:
    with (
        started(tmp_path / "ledger.db", CONNECTIONS_MAX="4") as service,
        contextlib.ExitStack() as stack,
    ):
        statuses = []
        for _ in range(40):
            connection = stack.enter_context(
                socket.create_connection((service.address.host, service.address.port), WAIT_SECONDS)
            )
            connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            statuses.append(connection.recv(4096)[9:12])
        assert statuses.count(b"200") == 4
        assert statuses.count(b"503") == 36


def test_fronts_that_cannot_live_end_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    reasons: list[str] = []

    async def main() -> None:
        back = build_back(Settings(database_url="memory://"), pytest.fail)
        await back.ledger.open()

        def on_deaths(reason: str) -> None:
            reasons.append(reason)
            workers.stop()

        workers = Workers(back, on_deaths, 1.0)
        async with asyncio.timeout(WAIT_SECONDS):
            await workers.serve(listen("127.0.0.1", 0, 2))
        await back.ledger.close()

    asyncio.run(main())
    reason = "died 5 times before it served, at last: exit status 1"
    assert reasons[0] in {f"worker {index} {reason}" for index in (0, 1)}
