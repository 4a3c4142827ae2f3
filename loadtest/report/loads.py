"""What a transaction costs to post under load, and what `GET /stats` costs beside it."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from loadtest.report.generator import Stream, drive
from loadtest.report.plan import CONNECTIONS, CURRENCIES, LOADS_PERCENT, Plan
from loadtest.report.progress import Progress
from loadtest.report.results import LADDER_STEPS, LoadRun
from loadtest.report.service import Cores, Service
from loadtest.report.statistics import percentile
from loadtest.report.wire import get_request, post_request

MEMORY: Final = "memory"
SQLITE: Final = "SQLite"
CLOSED: Final = "closed loop"
POST: Final = "POST /transactions"
STATS: Final = "GET /stats"

_WARM_SECONDS: Final = 0.5
_BODIES: Final = 512


class _Load(NamedTuple):
    name: str
    per_second: float | None
    stats_per_second: float | None


def load_name(percent: int) -> str:
    """What a load is called."""
    return f"{percent} %"


def measure_loads(
    plan: Plan, cores: Cores, directory: Path, seed: int, progress: Progress
) -> Iterator[LoadRun]:
    """For each round and store a process: how much it can take, then parts of that, posted openly."""
    for round_ in range(plan.write_rounds):
        choose = random.Random(f"{seed} loads {round_}")
        for store in choose.sample((MEMORY, SQLITE), k=2):
            # Beside the report, not in /tmp: that may be memory, where a sync costs nothing.
            with tempfile.TemporaryDirectory(dir=directory, prefix=".measuring-") as data:
                url = "memory://" if store == MEMORY else f"sqlite:///{Path(data) / 'report.db'}"
                with Service(cores.service, DATABASE_URL=url) as service:
                    yield from _Measurement(plan, store, round_, choose, service, progress).run()


class _Measurement:
    """One process of the service, under one load after another."""

    def __init__(
        self,
        plan: Plan,
        store: str,
        round_: int,
        choose: random.Random,
        service: Service,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._store = store
        self._round = round_
        self._choose = choose
        self._service = service
        self._progress = progress
        self._make_post = post_maker(choose)

    def run(self) -> Iterator[LoadRun]:
        """The closed loop tells the capacity; every other load is a part of it."""
        warm_seconds = min(_WARM_SECONDS, self._plan.write_seconds)
        drive(self._service.address, [self._posts(None)], warm_seconds)
        (closed,) = self._under(_Load(CLOSED, None, None))
        yield closed
        capacity = closed.answered_per_second
        loads = [_Load(load_name(percent), capacity * percent / 100, None) for percent in LOADS_PERCENT]
        if self._store == SQLITE:
            loads.append(loads[-1]._replace(stats_per_second=self._plan.stats_per_second))
        for load in self._choose.sample(loads, k=len(loads)):
            yield from self._under(load)

    def _posts(self, per_second: float | None) -> Stream:
        return Stream(self._make_post, CONNECTIONS, per_second, 201)

    def _under(self, load: _Load) -> Iterator[LoadRun]:
        beside = f" with {STATS}" if load.stats_per_second else ""
        self._progress.stage(f"posts, {self._store}, {load.name}{beside}, round {self._round + 1}")
        streams = [self._posts(load.per_second)]
        if load.stats_per_second:
            streams.append(Stream(self._make_stats, 1, load.stats_per_second, 200))
        busy, started = self._service.busy_seconds(), time.monotonic()
        drive(self._service.address, streams, self._plan.write_seconds)
        busy_percent = 100 * (self._service.busy_seconds() - busy) / (time.monotonic() - started)
        # Posts beside reads are not those of the same load alone: only the reads are kept of them.
        stream, request = (streams[-1], STATS if load.stats_per_second else POST)
        yield LoadRun(
            store=self._store,
            load=load.name,
            round=self._round,
            request=request,
            offered_per_second=None if stream.per_second is None else round(stream.per_second, 1),
            answered_per_second=round(stream.answered_per_second, 1),
            failed=sum(each.failed for each in streams),
            from_schedule_ms=_ladder(stream.from_schedule_ns),
            from_send_ms=_ladder(stream.from_send_ns),
            client_late_ms=_ladder(stream.client_late_ns)[989],
            service_busy_percent=round(busy_percent, 1),
        )
        self._progress.advance(self._plan.write_seconds)

    def _make_stats(self) -> bytes:
        return get_request(f"/stats?window={self._choose.randint(1, 60_000)}ms")


def post_maker(choose: random.Random) -> Callable[[], bytes]:
    """A function that makes the request of one transaction of this moment."""
    requests = [
        post_request(
            "/transactions",
            b'{"amount":%d.%02d,"currency":"%b","user_id":"u-%d","timestamp":1000000000000}'
            % (choose.randrange(10**5), choose.randrange(100), currency.encode(), number),
        )
        for number in range(_BODIES)
        for currency in (CURRENCIES[number % len(CURRENCIES)],)
    ]
    # The timestamp is 13 digits and a brace from the end: all but it is ready beforehand.
    heads = [request[:-14] for request in requests]
    given = 0

    def make() -> bytes:
        nonlocal given
        given += 1
        return b"%b%d}" % (heads[given % _BODIES], time.time_ns() // 1_000_000)

    return make


def sync_milliseconds(directory: Path) -> float:
    """What the disk takes to confirm four kilobytes, as the median of some attempts."""
    page = os.urandom(4096)
    taken: list[float] = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(50):
            os.write(file.fileno(), page)
            started = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter_ns() - started) / 1e6)
    return percentile(sorted(taken), 500)


def _ladder(latencies_ns: list[int]) -> list[float]:
    ordered = sorted(latencies_ns)
    return [round(percentile(ordered, step) / 1e6, 4) for step in range(1, LADDER_STEPS + 1)]
