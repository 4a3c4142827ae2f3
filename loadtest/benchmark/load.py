"""The two programs that make the load, and what they report: wrk, and redis-benchmark."""

import csv
import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

CONNECTIONS: Final = 64
# Batches fill a server with fewer; 64 of a thousand each are more than one lets wait.
BATCH_CONNECTIONS: Final = 8

# Over how much time before the start of a turn its timestamps are spread. The next turn of the same
# server starts at least a second later, so that each can be counted apart.
SPREAD_MS: Final = 1000

_SINGLE_BODIES: Final = 512
_BATCH_BODIES: Final = 16
_SCRIPT: Final = Path(__file__).with_name("transactions.lua")

_REQUESTS: Final = re.compile(r"^ *(\d+) requests in ", re.MULTILINE)
_RATE: Final = re.compile(r"^Requests/sec: +([\d.]+)$", re.MULTILINE)
_LATENCY: Final = re.compile(r"^ +(50|99)% +([\d.]+)(us|ms|s|m) *$", re.MULTILINE)
_BAD_STATUS: Final = re.compile(r"^ *Non-2xx or 3xx responses: (\d+)$", re.MULTILINE)
_SOCKET_ERRORS: Final = re.compile(r"^ *Socket errors: (.*)$", re.MULTILINE)
_UNIT_MICROSECONDS: Final = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


class LoadError(Exception):
    """The load did not run as it should have; the message is one line that says why."""


class Post(msgspec.Struct, frozen=True):
    """Transactions: one a request, or an array of `items`."""

    path: str = "/transactions"
    items: int = 0
    status: int = 201
    counted: bool = False
    """Whether the server's statistics tell, to the millisecond, what it has taken in."""

    @property
    def transactions(self) -> int:
        """How many transactions a request carries."""
        return self.items or 1

    @property
    def connections(self) -> int:
        """How many requests are under way at once."""
        return BATCH_CONNECTIONS if self.items else CONNECTIONS


class Get(msgspec.Struct, frozen=True):
    """One path, over and over, with at least so many transactions in the window."""

    path: str
    in_window: int = 0

    @property
    def connections(self) -> int:
        """How many requests are under way at once."""
        return CONNECTIONS


class Increment(msgspec.Struct, frozen=True):
    """Redis INCR, so many in one write."""

    pipeline: int = 1


class Sync(msgspec.Struct, frozen=True):
    """No server: the disk alone, 4 KiB appended and synced, over and over."""


Load = Post | Get | Increment | Sync


class Measured(msgspec.Struct, frozen=True):
    """What a load program says of one run."""

    requests: int
    requests_per_second: float
    p50_microseconds: float
    p99_microseconds: float


def installed(program: str) -> str | None:
    """Where a program is, also where only the administrator's path has it."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")


def wrk(port: int, load: Post | Get, seconds: int, now_ms: int) -> list[str]:
    """The command for one run of wrk."""
    command = ["wrk", "--threads", "1", "--connections", str(load.connections)]
    command += ["--duration", f"{seconds}s", "--timeout", "10s", "--latency"]
    address = f"http://127.0.0.1:{port}"
    if isinstance(load, Get):
        return [*command, address + load.path]
    bodies = _BATCH_BODIES if load.items else _SINGLE_BODIES
    numbers = (now_ms, SPREAD_MS, bodies, load.items)
    return [*command, "--script", str(_SCRIPT), address, "--", load.path, *map(str, numbers)]


def redis_benchmark(port: int, load: Increment, requests: int) -> list[str]:
    """The command for one run of redis-benchmark."""
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-t", "incr", "--csv"]
    return [*command, "-c", str(CONNECTIONS), "-n", str(requests), "-P", str(load.pipeline)]


def read_wrk(text: str) -> Measured:
    """Read what wrk printed. Raises LoadError where anything went wrong."""
    requests, rate = _REQUESTS.search(text), _RATE.search(text)
    latency = {
        percentile: float(number) * _UNIT_MICROSECONDS[unit]
        for percentile, number, unit in _LATENCY.findall(text)
    }
    if bad := _BAD_STATUS.search(text):
        raise LoadError(f"{bad[1]} answers were not 2xx")
    if errors := _SOCKET_ERRORS.search(text):
        raise LoadError(f"socket errors: {errors[1]}")
    if requests is None or rate is None or latency.keys() != {"50", "99"}:
        raise LoadError(f"wrk printed no result: {_last_line(text)}")
    if not int(requests[1]):
        raise LoadError("no request was answered")
    return Measured(int(requests[1]), float(rate[1]), latency["50"], latency["99"])


def read_redis_benchmark(text: str, requests: int) -> Measured:
    """Read what redis-benchmark printed for so many requests. Raises LoadError."""
    rows = csv.DictReader(text[max(0, text.find('"test"')) :].splitlines())
    for row in rows:
        if row.get("test") == "INCR":
            try:
                rate, p50, p99 = (
                    float(row[name]) for name in ("rps", "p50_latency_ms", "p99_latency_ms")
                )
            except (KeyError, TypeError, ValueError):
                break
            return Measured(requests, rate, p50 * 1000, p99 * 1000)
    raise LoadError(f"redis-benchmark printed no result: {_last_line(text)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing at all"])[-1]
