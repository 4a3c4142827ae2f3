"""The process as an operator meets it: how it starts, refuses to start, drains and dies."""

import os
import socket
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.server.listen import listen
from tests.support.ledger_file import Amounts, figures, figures_of, rows_in, sqlite_url
from tests.support.load import Load
from tests.support.process import WAIT_SECONDS, ServiceProcess

CONNECTIONS = 32
KILL_ROUNDS = int(os.environ.get("MILLRACE_KILL_ROUNDS", "2"))


def test_kills_under_load_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    environment = {"DATABASE_URL": sqlite_url(path), "WINDOW_SECONDS": "3600"}
    acknowledged: Amounts = {}
    for round_number in range(KILL_ROUNDS):
        with ServiceProcess(environment) as service:
            load = Load(service.serving(), connections=CONNECTIONS)
            load.run_until(40 + 97 * round_number, service.kill)
        before = len(acknowledged)
        acknowledged |= load.acknowledged
        assert len(acknowledged) == before + len(load.acknowledged)
        rows = rows_in(path)
        assert {key: rows.get(key) for key in acknowledged} == acknowledged
        # Each round may leave what was in flight: committed, but killed before its answer.
        assert len(rows) - len(acknowledged) <= CONNECTIONS * (round_number + 1)
    rows = rows_in(path)
    with ServiceProcess(environment) as service, service.client() as client:
        assert figures(client) == figures_of(rows)


def test_a_drain_under_load_answers_all_it_keeps_and_exits_with_0(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ServiceProcess({"DATABASE_URL": sqlite_url(path)}) as service:
        load = Load(service.serving())
        load.run_until(500, service.terminate)
        assert service.exit_status() == 0
        assert service.complaint() == ""
    assert rows_in(path) == load.acknowledged
    assert not path.with_name("ledger.db-wal").exists()
    assert path.stat().st_mode & 0o077 == 0


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    environment = {"DATABASE_URL": sqlite_url(tmp_path / "ledger.db")}
    for expected in (1, 2):
        with ServiceProcess(environment) as service, service.client() as client:
            now_ms = time.time_ns() // 1_000_000
            body = {"amount": "0.10", "timestamp": now_ms}
            assert client.post("/transactions", json=body).status_code == 201
            assert client.get("/stats").json()["count"] == expected
            service.terminate()
            assert service.exit_status() == 0


def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    with ServiceProcess({}) as service, service.client() as client:
        client.get("/health")
        service.terminate()
        assert service.exit_status() == 0


@pytest.mark.parametrize("lane", ["on", "off"])
def test_idle_connections_are_closed_after_their_time(lane: str) -> None:
    with ServiceProcess({"KEEP_ALIVE_SECONDS": "1", "FAST_LANE": lane}) as service, ExitStack() as stack:
        address = urlsplit(service.serving())
        idle = []
        for path in ("/health", "/readyz"):
            connection = socket.create_connection((address.hostname, address.port), WAIT_SECONDS)
            idle.append(stack.enter_context(connection))
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        for connection in idle:
            answer = b"".join(iter(partial(connection.recv, 4096), b""))
            assert answer.startswith(b"HTTP/1.1 200")


def test_rows_that_were_deleted_are_removed_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ServiceProcess({"DATABASE_URL": sqlite_url(path)}) as service, service.client() as client:
        now_ms = time.time_ns() // 1_000_000
        items = [{"amount": 1, "timestamp": now_ms}] * 5000
        assert client.post("/transactions/batch", json=items).json()["accepted"] == 5000
        assert len(rows_in(path)) == 5000
        assert client.delete("/transactions").status_code == 204
        deadline = time.monotonic() + WAIT_SECONDS
        while rows_in(path):
            assert time.monotonic() < deadline
            client.get("/health")


def test_a_log_that_nobody_reads_costs_its_lines_and_nothing_else() -> None:
    with ServiceProcess({}, last_event_read="serving") as service, service.client() as client:
        assert client.get("/health").status_code == 200
        service.terminate()
        assert service.exit_status() == 0
        assert service.complaint() == ""


def test_an_address_is_taken_from_the_start_on() -> None:
    listener = listen("127.0.0.1", 0)[0]
    with listener, pytest.raises(OSError, match="Address already in use"):
        listen("127.0.0.1", listener.getsockname()[1])


def test_log_lines_are_json_and_say_what_happens() -> None:
    with ServiceProcess({}) as service, service.client() as client:
        client.get("/health")
        service.terminate()
        assert service.exit_status() == 0
    names = [entry["event"] for entry in service.events]
    assert names == ["starting", "window_read_back", "serving", "draining", "stopped"]
    assert all(entry["ts"].endswith("Z") and entry["level"] for entry in service.events)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "http"), ("WINDOW_SECONDS", "0"), ("AUTH", "jwt"), ("HOST", "0.0.0.0")],
)
def test_a_wrong_setting_stops_the_start_with_one_line_and_status_2(variable: str, value: str) -> None:
    with ServiceProcess({variable: value}) as service:
        assert service.exit_status() == 2
        complaint = service.complaint()
    assert complaint.startswith("millrace: AUTH: " if variable == "HOST" else f"millrace: {variable}: ")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize("host", ["\u00e9..x", "\u00e9" * 64])
def test_a_host_that_cannot_be_a_name_stops_the_start_with_one_line(host: str) -> None:
    with ServiceProcess({"HOST": host, "AUTH": "off"}) as service:
        assert service.exit_status() == 1
        complaint = service.complaint()
    assert complaint == f"millrace: cannot listen on {host} port 0: not the name of a host\n"


def test_a_port_in_use_stops_the_start_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with ServiceProcess({"PORT": port}) as service:
            assert service.exit_status() == 1
            complaint = service.complaint()
    assert complaint == f"millrace: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_database_that_cannot_be_used_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    url = sqlite_url(tmp_path / "file" / "ledger.db")
    with ServiceProcess({"DATABASE_URL": url}) as service:
        assert service.exit_status() == 1
        complaint = service.complaint()
    assert complaint.startswith("millrace: cannot use ")
    assert complaint.count("\n") == 1
