"""Clients that take their time, or more than their share, beside those that do not."""

import asyncio
import os
import socket
import statistics
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.client.wire import Client, LostAnswerError, parse_address
from app.settings import Settings, Switch
from app.web.bodies import BODIES_BYTES_MAX
from app.web.limits import REQUEST_BODY_BYTES_MAX
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.thread import Clock, serve
from tests.support.wire import NOW_MS

Address = tuple[str, int]

IS_FULL = os.environ.get("MILLRACE_SLOW_CLIENTS") == "1"
# Of each kind: those that send a byte a second, and those that send nothing.
ATTACKERS = 500 if IS_FULL else 50
# A body has 15 seconds, which is too long for every day.
TRICKLED_BODIES = 250 if IS_FULL else 0
ROUNDS = 7 if IS_FULL else 1
ROUND_SECONDS = 3.0 if IS_FULL else 1.0
HONEST_CONNECTIONS = 16

HEAD = b"POST /transactions HTTP/1.1\r\nhost: x\r\n"
MUCH = b"x" * 5_000_000


def address_of(service: ServiceProcess) -> Address:
    parts = urlsplit(service.serving())
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("lane", list(Switch))
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD + b"content-length: %d\r\n\r\n" % len(MUCH) + MUCH, 413),
        (HEAD + b"content-length: 9000000\r\n\r\n" + MUCH, 413),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(MUCH) + MUCH, 413),
        (HEAD + b"a: " + MUCH, 431),
        (HEAD + b"what is this\r\n\r\n" + MUCH, 400),
    ],
)
def test_a_client_that_sends_all_before_it_reads_sees_why_it_was_refused(
    lane: Switch, request_: bytes, status: int
) -> None:
    settings = Settings(database_url="memory://", fast_lane=lane)
    with (
        serve(settings, Clock(NOW_MS)) as service,
        socket.create_connection(service.address, WAIT_SECONDS) as connection,
    ):
        connection.sendall(request_)
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1") == 1


def connected(address: Address, request: bytes) -> bytes:
    """What a new connection is answered, until it is closed."""
    with socket.create_connection(address, WAIT_SECONDS) as connection:
        connection.sendall(request)
        return read_all(connection)


def test_a_connection_past_the_last_is_answered_and_the_others_are_served() -> None:
    with ServiceProcess({"CONNECTIONS_MAX": "2", "KEEP_ALIVE_SECONDS": "60"}) as service:
        address = address_of(service)
        question = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n"
        with socket.create_connection(address) as first, socket.create_connection(address) as second:
            for connection in (first, second):
                connection.sendall(question % b"/stats")
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            for _ in range(100):
                assert connected(address, question % b"/stats").startswith(b"HTTP/1.1 503 ")
                assert connected(address, question % b"/livez").startswith(b"HTTP/1.1 200 ")
            first.sendall(question % b"/stats")
            assert first.recv(65_536).startswith(b"HTTP/1.1 200 ")
        closing = question.replace(b"host", b"connection: close\r\nhost")
        deadline = time.monotonic() + WAIT_SECONDS
        while not connected(address, closing % b"/stats").startswith(b"HTTP/1.1 200 "):
            assert time.monotonic() < deadline


def test_a_probe_is_answered_however_many_silent_connections_there_are_past_the_last() -> None:
    with ServiceProcess({"CONNECTIONS_MAX": "20", "KEEP_ALIVE_SECONDS": "60"}) as service:
        address = address_of(service)
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(socket.create_connection(address, WAIT_SECONDS))
            for line in (b"GET /livez", b"HEAD /livez", b"GET /health?x=1") * 5:
                answer = connected(address, line + b" HTTP/1.1\r\nhost: x\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200 ")


def test_bodies_that_are_never_whole_have_a_bound_of_memory_in_common() -> None:
    size_bytes = REQUEST_BODY_BYTES_MAX
    head = b"POST /transactions/batch HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size_bytes
    with ServiceProcess({}) as service, ExitStack() as stack:
        address = address_of(service)
        before = rss_bytes(service.pid)
        taken = BODIES_BYTES_MAX // size_bytes
        for _ in range(taken):
            connection = stack.enter_context(socket.create_connection(address, WAIT_SECONDS))
            connection.sendall(head + b" " * (size_bytes - 9))
        for _ in range(10):
            assert connected(address, head).startswith(b"HTTP/1.1 503 ")
        time.sleep(0.5)
        assert rss_bytes(service.pid) - before < BODIES_BYTES_MAX + 50 * 2**20
        question = b"GET /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        assert connected(address, question).startswith(b"HTTP/1.1 200 ")


def test_the_limit_of_open_files_is_raised_as_far_as_connections_need() -> None:
    command = ("sh", "-c", 'ulimit -Sn 64 && exec "$0" "$@"')
    with ServiceProcess({"CONNECTIONS_MAX": "200"}, command) as service:
        service.serving()
        limits = Path(f"/proc/{service.pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
        assert int(line.split()[3]) > 200
        assert not [entry for entry in service.events if entry["event"] == "fewer_connections"]


def test_where_the_limit_of_open_files_cannot_be_raised_there_are_fewer_connections() -> None:
    command = ("sh", "-c", 'ulimit -n 160 && exec "$0" "$@"')
    with ServiceProcess({}, command) as service:
        entry = service.wait_for("fewer_connections")
        assert entry["open_files_max"] == 160
        address = address_of(service)
        held = [socket.create_connection(address) for _ in range(entry["connections_max"])]
        for connection in held:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        answer = connected(address, b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        for connection in held:
            connection.close()


class Attack:
    """Connections that hold on as long as they can, and how long that was."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.lifetimes: list[float] = []
        self.answers: list[bytes] = []

    async def run(self) -> None:
        await asyncio.gather(
            *(self._hold(self._send_nothing) for _ in range(ATTACKERS)),
            *(self._hold(self._trickle_head) for _ in range(ATTACKERS - TRICKLED_BODIES)),
            *(self._hold(self._trickle_body) for _ in range(TRICKLED_BODIES)),
        )

    async def _hold(self, send: Callable[[asyncio.StreamWriter], Coroutine[None, None, None]]) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        began = time.monotonic()
        sending = asyncio.create_task(send(writer))
        try:
            self.answers.append(await reader.read())
        except ConnectionResetError:
            self.answers.append(b"")
        self.lifetimes.append(time.monotonic() - began)
        sending.cancel()
        writer.close()

    async def _send_nothing(self, writer: asyncio.StreamWriter) -> None:
        pass

    async def _trickle_head(self, writer: asyncio.StreamWriter) -> None:
        await self._trickle(writer, HEAD + b"a: ")

    async def _trickle_body(self, writer: asyncio.StreamWriter) -> None:
        await self._trickle(writer, HEAD + b"content-length: 100\r\n\r\n")

    async def _trickle(self, writer: asyncio.StreamWriter, start: bytes) -> None:
        writer.write(start)
        while True:
            await asyncio.sleep(1)
            writer.write(b" ")


class Honest:
    """Clients that post one transaction after another, how fast, and what that costs the service."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self._pid = pid
        self.lost = 0

    async def rate(self, seconds: float) -> tuple[float, float]:
        """Transactions acknowledged in a second, and the service's time for each, in microseconds."""
        until, before = time.monotonic() + seconds, cpu_seconds(self._pid)
        counts = await asyncio.gather(*(self._post(until) for _ in range(HONEST_CONNECTIONS)))
        total = sum(counts)
        return total / seconds, (cpu_seconds(self._pid) - before) / total * 1e6

    async def _post(self, until: float) -> int:
        count = 0
        async with Client(parse_address(self._url)) as client:
            while time.monotonic() < until:
                body = b'{"amount":1,"timestamp":%d}' % (time.time_ns() // 1_000_000)
                try:
                    count += (await client.post("/transactions", body)).status == 201
                except LostAnswerError:
                    self.lost += 1
        return count


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_honest_clients_do_not_notice_slow_ones_which_are_closed_in_time(tmp_path: Path) -> None:
    async def main(service: ServiceProcess, url: str, address: Address) -> None:
        honest, quiet, beside = Honest(url, service.pid), [], []
        await honest.rate(0.5)
        before, grown = rss_bytes(service.pid), 0
        for _ in range(ROUNDS):
            if IS_FULL:
                quiet.append(await honest.rate(ROUND_SECONDS))
            attack = Attack(address)
            attacking = asyncio.create_task(attack.run())
            await asyncio.sleep(0.5)
            beside.append(await honest.rate(ROUND_SECONDS))
            grown = max(grown, rss_bytes(service.pid) - before)
            await asyncio.wait_for(attacking, WAIT_SECONDS)
            assert max(attack.lifetimes) < 16
            refused = [answer for answer in attack.answers if answer]
            assert len(refused) == ATTACKERS
            assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in refused)
        assert honest.lost == 0
        assert grown < 50 * 2**20
        if IS_FULL:
            quiet_rate, quiet_us = map(statistics.median, zip(*quiet, strict=True))
            rate, cpu_us = map(statistics.median, zip(*beside, strict=True))
            print(f"alone {quiet_rate:.0f} a second at {quiet_us:.1f} us each, beside slow clients")
            print(f"{rate:.0f} at {cpu_us:.1f} us, with {grown / 2**20:.1f} MiB more")
            assert rate >= 0.95 * quiet_rate

    with ServiceProcess({"DATABASE_URL": f"sqlite:///{tmp_path / 'ledger.db'}"}) as service:
        url = service.serving()
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        asyncio.run(main(service, url, (parts.hostname, parts.port)))
