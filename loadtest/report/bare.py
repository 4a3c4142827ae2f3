"""Three structures without a service around them: the window, and two that are simpler.

The naive list is exact and looks at every row on every read. The ring of seconds looks at sixty slots,
however much they hold, and knows no instant between two seconds.
"""

import multiprocessing
import random
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from app.core.money import UNITS_MAX
from app.core.summary import EMPTY, Summary
from app.core.window import Shape, Window
from loadtest.report.plan import Plan
from loadtest.report.progress import Progress
from loadtest.report.results import BareRun, EdgeError
from loadtest.report.service import Cores, on_core
from loadtest.report.wire import UnexpectedAnswerError

WINDOW_MS: Final = 60_000
SECONDS: Final = WINDOW_MS // 1000
START_MS: Final = 1_767_323_045_678

NAIVE: Final = "naive list"
RING: Final = "ring of 60 seconds"
WINDOW: Final = "window"

_READS_MIN: Final = 5
_EDGE_ROWS_PER_SECOND: Final = 2000
_EDGE_STEP_MS: Final = 20
_EDGE_STEPS: Final = 150
EDGE_SPANS_SECONDS: Final = (1, 5, 10, 60)


class Structure(Protocol):
    """What answers statistics over the time since an instant."""

    def record(self, timestamp_ms: int, amount_units: int) -> object:
        """Add one amount."""

    def since(self, from_ms: int) -> Summary:
        """The summary of what happened at `from_ms` or later."""


class NaiveList:
    """Every row, filtered on every read. Nothing is ever dropped: no measurement lasts that long."""

    def __init__(self) -> None:
        # Arrays, since ten million rows are to fit a developer's machine.
        self._times = array("q")
        self._amounts = array("q")

    def record(self, timestamp_ms: int, amount_units: int) -> None:
        """Add one amount."""
        self._times.append(timestamp_ms)
        self._amounts.append(amount_units)

    def since(self, from_ms: int) -> Summary:
        """The summary of what happened at `from_ms` or later."""
        amounts = [
            amount for time_, amount in zip(self._times, self._amounts, strict=True) if time_ >= from_ms
        ]
        return Summary(len(amounts), sum(amounts), min(amounts), max(amounts)) if amounts else EMPTY


class RingOfSeconds:
    """Sixty slots of one second, each with the second it stands for: the usual answer."""

    def __init__(self) -> None:
        self._seconds = [-1] * SECONDS
        self._counts = [0] * SECONDS
        self._sums = [0] * SECONDS
        self._minima = [UNITS_MAX] * SECONDS
        self._maxima = [-UNITS_MAX] * SECONDS

    def record(self, timestamp_ms: int, amount_units: int) -> None:
        """Add one amount; the second that had its slot before makes way."""
        second = timestamp_ms // 1000
        slot = second % SECONDS
        if second > self._seconds[slot]:
            self._seconds[slot] = second
            self._counts[slot] = self._sums[slot] = 0
            self._minima[slot], self._maxima[slot] = UNITS_MAX, -UNITS_MAX
        if second == self._seconds[slot]:
            self._counts[slot] += 1
            self._sums[slot] += amount_units
            self._minima[slot] = min(self._minima[slot], amount_units)
            self._maxima[slot] = max(self._maxima[slot], amount_units)

    def since(self, from_ms: int) -> Summary:
        """The summary of every second that `from_ms` lies in or before, as far as there is a slot."""
        first = from_ms // 1000
        count = sum_units = 0
        min_units, max_units = UNITS_MAX, -UNITS_MAX
        for slot, second in enumerate(self._seconds):
            if second >= first:
                count += self._counts[slot]
                sum_units += self._sums[slot]
                min_units = min(min_units, self._minima[slot])
                max_units = max(max_units, self._maxima[slot])
        return Summary(count, sum_units, min_units, max_units)


def _new_window() -> Window:
    return Window(Shape.covering(WINDOW_MS, 0))


STRUCTURES: Final[dict[str, Callable[[], Structure]]] = {
    NAIVE: NaiveList,
    RING: RingOfSeconds,
    WINDOW: _new_window,
}


def measure_bare(plan: Plan, cores: Cores, seed: int, progress: Progress) -> Iterator[list[BareRun]]:
    """Each round in a process of its own, on the service's core."""
    for round_ in range(plan.bare_rounds):
        progress.stage(f"bare structures, round {round_ + 1} of {plan.bare_rounds}")
        with (
            on_core(cores.service),
            multiprocessing.get_context("spawn").Pool(1) as pool,
        ):
            yield pool.apply(climb, (plan, round_, f"{seed} bare {round_}"))
        progress.advance_bare_rows(10**plan.decades)
        progress.advance(plan.decades)


def climb(plan: Plan, round_: int, seed: str) -> list[BareRun]:
    """Fill all structures with the same rows, and read each whenever they hold a power of ten."""
    choose = random.Random(seed)
    structures = {name: create() for name, create in STRUCTURES.items()}
    runs: list[BareRun] = []
    held = 0
    for decade in range(1, plan.decades + 1):
        for timestamp_ms, amount_units in _rows(choose, 10**decade - held):
            for structure in structures.values():
                structure.record(timestamp_ms, amount_units)
        held = 10**decade
        for name, structure in structures.items():
            latencies_us = _read(structure, choose, plan)
            runs.append(BareRun(structure=name, in_window=held, round=round_, latencies_us=latencies_us))
        _check(structures[NAIVE], structures[WINDOW], choose)
    return runs


def _rows(choose: random.Random, rows: int) -> Iterator[tuple[int, int]]:
    # Drawn by the thousand: one at a time would take longer than what it is drawn for.
    for begin in range(0, rows, 1000):
        size = min(rows - begin, 1000)
        times = choose.choices(range(START_MS - WINDOW_MS, START_MS + 1), k=size)
        yield from zip(times, choose.choices(range(10**15), k=size), strict=True)


def _read(structure: Structure, choose: random.Random, plan: Plan) -> list[float]:
    clock = time.perf_counter_ns
    latencies_us: list[float] = []
    give_up = time.monotonic() + plan.bare_read_seconds_max
    while len(latencies_us) < plan.bare_reads:
        from_ms = START_MS - choose.randint(1, WINDOW_MS)
        started = clock()
        structure.since(from_ms)
        latencies_us.append(round((clock() - started) / 1000, 2))
        if time.monotonic() > give_up and len(latencies_us) >= _READS_MIN:
            break
    return latencies_us


def _check(naive: Structure, window: Structure, choose: random.Random) -> None:
    from_ms = START_MS - choose.randint(1, WINDOW_MS)
    if naive.since(from_ms) != window.since(from_ms):
        raise UnexpectedAnswerError(f"the window differs from the naive list since {from_ms}")


def measure_edge_errors(seed: int) -> list[EdgeError]:
    """Counts while time goes on, against exact ones: an even stream, read every few milliseconds."""
    choose = random.Random(f"{seed} edge")
    end_ms = START_MS + _EDGE_STEP_MS * _EDGE_STEPS
    begin_ms = START_MS - WINDOW_MS - 2000
    rows = (end_ms - begin_ms) * _EDGE_ROWS_PER_SECOND // 1000
    times = sorted(choose.choices(range(begin_ms, end_ms), k=rows))
    elapsed_ms = [_EDGE_STEP_MS * step for step in range(_EDGE_STEPS)]
    errors: list[EdgeError] = []
    for name in (RING, WINDOW):
        structure = STRUCTURES[name]()
        percents: dict[int, list[float]] = {span: [] for span in EDGE_SPANS_SECONDS}
        recorded = 0
        for elapsed in elapsed_ms:
            now_ms = START_MS + elapsed
            happened = bisect_left(times, now_ms + 1)
            for timestamp_ms in times[recorded:happened]:
                structure.record(timestamp_ms, 1)
            recorded = happened
            for span, percent in percents.items():
                from_ms = now_ms - span * 1000
                exact = happened - bisect_left(times, from_ms)
                percent.append(round(100 * (structure.since(from_ms).count / exact - 1), 4))
        errors += [
            EdgeError(structure=name, span_seconds=span, elapsed_ms=elapsed_ms, percent=percent)
            for span, percent in percents.items()
        ]
    return errors
