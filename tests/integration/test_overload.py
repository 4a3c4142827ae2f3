"""Three times what a slow disk can take: most is refused at once, the rest is served as if alone.

The disk takes 20 ms a sync, then hangs for some seconds. The load is open: nobody waits for answers. In
`make test` it is a short one without figures, which a busy machine would make a gamble; with
MILLRACE_OVERLOAD=1 it is a long one that holds them to account.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop

from tests.support.ledger_file import rows_in, sqlite_url
from tests.support.open_loop import Kind, OpenLoop, Sample, percentile, rows_taken
from tests.support.process import ServiceProcess
from tests.support.strace import needs_strace, strace

IS_LONG = os.environ.get("MILLRACE_OVERLOAD", "") == "1"
LEARNING_SECONDS = 4.0 if IS_LONG else 0.5
OVERLOAD_SECONDS = 60.0 if IS_LONG else 1.5

SYNC_MICROSECONDS = 20_000
# Some seconds into the load: a commit of a full batch makes some forty writes.
HANG_AT_WRITE, HANG_SECONDS = 6000, 5
CONNECTIONS = 1000
LEARNING_CONNECTIONS = 24
OVERLOAD = 3
SIDE_RATES = {Kind.POST: 400, Kind.STATS: 100, Kind.LIVE: 100}

GOODPUT_MIN = 0.9
ACCEPTED_P99_SECONDS_MAX = 0.25
REFUSED_P99_SECONDS_MAX = 0.05
BACK_TO_NORMAL_SECONDS_MAX = 5.0
# SQLite's own cache is 32 MiB, and filled by half time.
GROWTH_BYTES_MAX = 16 * 2**20


class Trial:
    """One load on one service, and what it came to."""

    def __init__(self, service: ServiceProcess, clients: OpenLoop) -> None:
        self._service = service
        self.clients = clients
        self.capacity = 0.0
        """Rows a second the service takes when nobody presses it."""
        self.samples: list[Sample] = []
        self.resident_bytes: list[int] = []
        self._started = self._ended = 0.0

    async def learn(self) -> None:
        """Find out what it can take."""
        await self.clients.grow(CONNECTIONS)
        self.capacity = await self.clients.closed(Kind.BATCH, LEARNING_CONNECTIONS, LEARNING_SECONDS)

    async def overload(self, rows_a_second: float, seconds: float) -> None:
        """Send it three times that much."""
        watching = asyncio.create_task(self._watch())
        before = len(self.clients.samples)
        self._started = time.monotonic()
        rates = {Kind.BATCH: OVERLOAD * rows_a_second / 100, **SIDE_RATES}
        await self.clients.run(rates, seconds)
        self._ended = time.monotonic()
        watching.cancel()
        await self.clients.settle()
        self.samples = self.clients.samples[before:]

    async def _watch(self) -> None:
        while True:
            self.resident_bytes.append(resident_bytes(self._service.pid))
            await asyncio.sleep(0.5)

    def waits(self, *statuses: int, kinds: tuple[Kind, ...] = (Kind.POST, Kind.BATCH)) -> list[float]:
        """The seconds until each answer of those statuses."""
        return [each.seconds for each in self.samples if each.kind in kinds and each.status in statuses]

    def goodput(self) -> float:
        """Rows a second that were accepted in the middle of the load."""
        first, last = self._started + 1, self._ended
        inside = [each for each in self.samples if first < each.due + each.seconds < last]
        return rows_taken(inside) / (last - first)


def run(directory: Path, body: Callable[[Trial], Coroutine[None, None, None]], **faults: str) -> Trial:
    """Run a load against a service with a slow disk; what is kept must be what was accepted."""
    path = directory / "disk" / "ledger.db"
    environment = {"DATABASE_URL": sqlite_url(path), "KEEP_ALIVE_SECONDS": "600"}
    with ServiceProcess(environment, strace(directory / "trace", **faults)) as service:
        address = urlsplit(service.serving())

        async def main() -> Trial:
            clients = OpenLoop((str(address.hostname), int(address.port or 0)))
            trial = Trial(service, clients)
            await body(trial)
            clients.close()
            return trial

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            trial = runner.run(main())
        service.terminate()
        assert service.exit_status() == 0
    assert (trial.clients.lost, trial.clients.unsent) == (0, 0)
    assert len(rows_in(path)) == rows_taken(trial.clients.samples)
    for each in trial.samples:
        is_write = each.kind in (Kind.POST, Kind.BATCH)
        assert each.status in (200, 201) or (is_write and each.status == 503 and each.may_retry), each
    return trial


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def back_to_normal(trial: Trial) -> None:
    """Once the load is no more than can be taken, everything is."""
    ends = time.monotonic() + BACK_TO_NORMAL_SECONDS_MAX
    while True:
        before = len(trial.clients.samples)
        await trial.clients.run({Kind.POST: 50, Kind.BATCH: trial.capacity / 100 / 3}, 0.5)
        await trial.clients.settle()
        if all(each.status != 503 for each in trial.clients.samples[before:]):
            return
        assert time.monotonic() < ends, "still refusing"


def report(trial: Trial, name: str) -> None:
    for what, seconds in (
        ("accepted", trial.waits(200, 201)),
        ("refused", trial.waits(503)),
        ("statistics", trial.waits(200, kinds=(Kind.STATS,))),
        ("probes", trial.waits(200, kinds=(Kind.LIVE,))),
    ):
        times = ", ".join(f"{percentile(seconds, share) * 1000:.0f}" for share in (0.5, 0.9, 0.99, 1))
        print(f"{name}: {len(seconds)} {what}: p50, p90, p99, max: {times} ms")
    print(f"{name}: can take {trial.capacity:.0f} rows a second, took {trial.goodput():.0f}")
    print(f"{name}: resident MiB: {[size >> 20 for size in trial.resident_bytes]}")


@needs_strace
def test_a_slow_disk_is_kept_busy_and_what_it_cannot_take_is_refused_at_once(tmp_path: Path) -> None:
    async def body(trial: Trial) -> None:
        await trial.learn()
        await trial.overload(trial.capacity, OVERLOAD_SECONDS)
        await back_to_normal(trial)

    trial = run(tmp_path, body, fdatasync=f"delay_enter={SYNC_MICROSECONDS}")
    report(trial, "slow")
    accepted, refused = trial.waits(200, 201), trial.waits(503)
    assert percentile(refused, 0.5) < percentile(accepted, 0.5)
    if not IS_LONG:
        return
    assert trial.goodput() >= GOODPUT_MIN * trial.capacity
    assert percentile(accepted, 0.99) <= ACCEPTED_P99_SECONDS_MAX
    for seconds in (refused, *(trial.waits(200, kinds=(kind,)) for kind in (Kind.STATS, Kind.LIVE))):
        assert percentile(seconds, 0.99) <= REFUSED_P99_SECONDS_MAX
    half = trial.resident_bytes[len(trial.resident_bytes) // 2 :]
    assert max(half) - half[0] <= GROWTH_BYTES_MAX


@needs_strace
@pytest.mark.skipif(not IS_LONG, reason="takes a while: MILLRACE_OVERLOAD=1 asks for it")
def test_a_disk_that_hangs_holds_up_what_was_taken_and_nothing_else(tmp_path: Path) -> None:
    rows_a_second = 30_000.0

    async def body(trial: Trial) -> None:
        trial.capacity = rows_a_second
        await trial.clients.grow(CONNECTIONS)
        await trial.overload(rows_a_second, 15)
        await back_to_normal(trial)

    hang = f"delay_enter={HANG_SECONDS * 1_000_000}:when={HANG_AT_WRITE}"
    trial = run(tmp_path, body, fdatasync=f"delay_enter={SYNC_MICROSECONDS}", pwrite64=hang)
    report(trial, "hanging")
    assert max(trial.waits(200, 201)) >= HANG_SECONDS - 1, "the disk did not hang"
    for seconds in (
        trial.waits(503),
        *(trial.waits(200, kinds=(kind,)) for kind in (Kind.STATS, Kind.LIVE)),
    ):
        assert percentile(seconds, 0.99) <= REFUSED_P99_SECONDS_MAX
