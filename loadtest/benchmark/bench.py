"""Runs one arm at a time: starts its server, asks it once, loads it, and looks at what was counted."""

import json
import math
import resource
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

import msgspec

from loadtest.benchmark.arms import Arm
from loadtest.benchmark.load import (
    SPREAD_MS,
    Get,
    Increment,
    LoadError,
    Measured,
    Post,
    Sync,
    read_redis_benchmark,
    read_wrk,
    redis_benchmark,
    wrk,
)
from loadtest.benchmark.machine import busy_seconds, sync_times_us
from loadtest.benchmark.processes import Process, Processes, free_port
from loadtest.benchmark.servers import Server, UnavailableError

_START_SECONDS: Final = 20.0
_BUILD_SECONDS: Final = 300.0
_ANSWER_SECONDS: Final = 10.0
# What a load may take beyond its time: starting, building its bodies, waiting for the last answers.
_SLACK_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.3
_SYNC_SECONDS: Final = 1.0

_FILL_SECONDS_MAX: Final = 20
_INCREMENTS_FIRST: Final = 50_000
# The first rows of a turn must not fall out of the question while it travels; less than the pause.
_COUNT_MARGIN_MS: Final = 200


class Turn(msgspec.Struct, frozen=True):
    """What one arm did in one round. Shares are parts of one core."""

    per_second: float
    p50_microseconds: float
    p99_microseconds: float
    requests: int
    client_share: float | None = None
    server_share: float | None = None
    others_share: float | None = None
    """What neither client nor server took of their two cores: whatever else the machine did."""


class _Running(msgspec.Struct, frozen=True):
    process: Process
    port: int


class Bench:
    """The servers that are up, and the load that is put on one of them."""

    def __init__(self, processes: Processes, directory: Path, server_core: int, load_core: int) -> None:
        self._processes = processes
        self._directory = directory
        self._server_core = server_core
        self._load_core = load_core
        self._servers: dict[str, _Running] = {}
        self._increments_per_second: dict[str, float] = {}

    def prepare(self, arm: Arm, seconds: int) -> None:
        """Start the arm's server and warm it up. Raises UnavailableError or LoadError."""
        if arm.server is None:
            return
        running = self._servers.get(arm.server.name)
        if running is None:
            running = self._servers[arm.server.name] = self._start(arm.server)
        if isinstance(arm.load, Post | Get):
            _probe(running.port, arm.load)
        self.turn(arm, seconds)

    def turn(self, arm: Arm, seconds: int) -> Turn:
        """Load one arm for so many seconds, all others being idle. Raises LoadError."""
        time.sleep(_PAUSE_SECONDS)
        if arm.server is None:
            return self._sync_turn()
        running = self._servers[arm.server.name]
        if isinstance(arm.load, Get):
            self._fill(running, arm.load.in_window)
        now_ms = _now_ms()
        before = self._cpu_seconds(running)
        started = time.monotonic()
        measured = self._load(arm, running, seconds, now_ms)
        lasted = time.monotonic() - started
        after = self._cpu_seconds(running)
        client, server, both_cores = (
            (late - early) / lasted for early, late in zip(before, after, strict=True)
        )
        if not running.process.alive:
            raise LoadError(f"the server ended: {_last_line(running.process)}")
        per_request = 1
        if isinstance(arm.load, Post):
            per_request = arm.load.transactions
            if arm.load.counted:
                _check_count(running.port, arm.load, now_ms, measured.requests)
        return Turn(
            measured.requests_per_second * per_request,
            measured.p50_microseconds,
            measured.p99_microseconds,
            measured.requests,
            client,
            server,
            max(0.0, both_cores - client - server),
        )

    def _cpu_seconds(self, running: _Running) -> tuple[float, float, float]:
        """What the load, the server and all else on their two cores have taken so far."""
        cores = busy_seconds(self._server_core, self._load_core)
        return _children_cpu_seconds(), running.process.cpu_seconds(), cores

    def _start(self, server: Server) -> _Running:
        directory = self._directory / server.name
        directory.mkdir(exist_ok=True)
        port = free_port()
        start = server.prepare(directory, port)
        if start.build:
            self._finish(start.build, _BUILD_SECONDS, start.environment)
        process = self._processes.start(start.command, self._server_core, environment=start.environment)
        give_up = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS).close()
            except OSError:
                if not process.alive:
                    raise LoadError(f"{server.name} did not start: {_last_line(process)}") from None
                if time.monotonic() > give_up:
                    raise LoadError(f"{server.name} does not listen") from None
                time.sleep(0.02)
            else:
                return _Running(process, port)

    def _load(self, arm: Arm, running: _Running, seconds: int, now_ms: int) -> Measured:
        match arm.load:
            case Increment() as load:
                # It is told a number of requests, not a time.
                rate = self._increments_per_second.get(arm.name)
                requests = _INCREMENTS_FIRST if rate is None else math.ceil(rate * seconds)
                command = redis_benchmark(running.port, load, requests)
                measured = read_redis_benchmark(self._finish(command, seconds), requests)
                self._increments_per_second[arm.name] = measured.requests_per_second
                return measured
            case Post() | Get() as load:
                return read_wrk(self._finish(wrk(running.port, load, seconds, now_ms), seconds))
            case Sync():
                raise AssertionError("has no server")

    def _fill(self, running: _Running, in_window: int) -> None:
        """Bring the window to at least so many transactions."""
        for _ in range(_FILL_SECONDS_MAX):
            if in_window <= 0 or _count(running.port) >= in_window:
                return
            read_wrk(self._finish(wrk(running.port, Post(), 1, _now_ms()), 1))
        raise LoadError(f"the window does not fill to {in_window}")

    def _sync_turn(self) -> Turn:
        times_us = sync_times_us(self._directory, _SYNC_SECONDS)
        count = len(times_us)
        return Turn(
            count / sum(times_us) * 1e6, times_us[count // 2], times_us[count * 99 // 100], count
        )

    def _finish(
        self, command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run a command on the load's core to its end; what it wrote. Raises LoadError."""
        seconds_max = seconds + _SLACK_SECONDS
        process = self._processes.start(
            command, self._load_core, seconds_max=seconds_max, environment=environment
        )
        try:
            status = process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            raise LoadError(f"{command[0]} took more than {seconds_max:g} s") from None
        finally:
            self._processes.end(process)
        if status:
            raise LoadError(f"{command[0]} ended with {status}: {_last_line(process)}")
        return process.output()


def _probe(port: int, load: Post | Get) -> None:
    """Ask once, and look at the answer as the load will not."""
    if isinstance(load, Get):
        status, _ = _request(port, "GET", load.path)
        expected = status // 100 == 2
    else:
        # Too old to be counted among those of the turn that follows.
        timestamp_ms = _now_ms() - 2 * SPREAD_MS
        one = {"amount": 12.5, "currency": "EUR", "timestamp": timestamp_ms, "user_id": "u-1"}
        body = [one] * load.items if load.items else one
        status, answer = _request(port, "POST", load.path, json.dumps(body).encode())
        expected = status == load.status
        if expected and load.items and load.counted:
            accepted = json.loads(answer).get("accepted")
            if accepted != load.items:
                raise LoadError(f"of a batch of {load.items}, {accepted} were accepted")
    if status in (404, 405):
        raise UnavailableError(f"this version has no {load.path} ({status})")
    if not expected:
        raise LoadError(f"{load.path} answered {status}")


def _check_count(port: int, load: Post, now_ms: int, requests: int) -> None:
    """Hold what was answered against what was counted since the turn began. Raises LoadError."""
    oldest_ms = now_ms - SPREAD_MS
    counted = _count(port, f"?window={_now_ms() - oldest_ms + _COUNT_MARGIN_MS}ms")
    # Of what was under way when the time was up nobody waits for the answer.
    answered, under_way = (number * load.transactions for number in (requests, load.connections))
    if not answered <= counted <= answered + under_way:
        raise LoadError(f"{answered} transactions were answered, but {counted} were counted")


def _count(port: int, query: str = "") -> int:
    status, answer = _request(port, "GET", "/stats" + query)
    if status != 200:
        raise LoadError(f"/stats answered {status}")
    return int(json.loads(answer)["count"])


def _request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException) as problem:
        raise LoadError(f"{method} {path}: {problem!r}") from None
    finally:
        connection.close()


def _children_cpu_seconds() -> float:
    """Processor time of all processes that have been waited for, the load's among them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _last_line(process: Process) -> str:
    return (process.output().strip().splitlines() or ["it said nothing"])[-1]
