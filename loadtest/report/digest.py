"""The figures of the report, made of the raw ones and of nothing else."""

import math
import random
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Final

import msgspec

from loadtest.report.bare import STRUCTURES
from loadtest.report.plan import MARGIN
from loadtest.report.results import BareRun, EdgeError, LoadRun, Measured, ReadRun
from loadtest.report.statistics import (
    Equivalence,
    Interval,
    bootstrap,
    equivalence,
    percentile,
    theil_sen,
)

PERCENTILES: Final = {"p50": 500, "p99": 990}
LOAD_PERCENTILES: Final = {"p50": 500, "p99": 990, "p999": 999}


class ReadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /stats` at one N: medians of the rounds."""

    in_window: int
    rounds: int
    reads: int
    p50_us: Interval
    p99_us: Interval
    posted: float
    resident_mib: float
    fill_per_second: float


class Slope(msgspec.Struct, frozen=True, kw_only=True):
    """How much a percentile grows with each tenfold of N."""

    us_per_decade: Interval
    percent_per_decade: Interval


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A percentile at the most transactions, over the one at fewer, paired by round."""

    few: int
    many: int
    p50: Equivalence
    p99: Equivalence


class BareFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Reads of a bare structure at one N."""

    structure: str
    in_window: int
    p50_us: Interval
    p99_us: Interval


class EdgeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How far counts are off, in percent of the exact one, without its sign."""

    structure: str
    span_seconds: int
    worst_percent: float
    mean_percent: float


class LoadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request under one load: medians of the rounds, with their intervals."""

    store: str
    load: str
    request: str
    rounds: int
    offered_per_second: float | None
    """Of the request itself; None in the closed loop."""
    answered_per_second: Interval
    from_schedule_ms: dict[str, Interval]
    from_send_ms: dict[str, Interval]
    failed: int
    client_late_ms: float
    service_busy_percent: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the page says in numbers."""

    reads: list[ReadFigures]
    slopes: dict[str, Slope]
    comparisons: list[Comparison]
    bare: list[BareFigures]
    edge: list[EdgeFigures]
    loads: list[LoadFigures]


class Report(msgspec.Struct, frozen=True):
    """What the JSON holds: raw figures, and those of the page that were made of them."""

    figures: Figures
    measured: Measured


def digest(measured: Measured) -> Figures:
    """Every figure, with intervals drawn from the measurement's own seed."""
    choose = random.Random(f"{measured.circumstances.seed} digest")
    return Figures(
        reads=_reads(measured.reads, choose),
        slopes={name: _slope(measured.reads, step, choose) for name, step in PERCENTILES.items()},
        comparisons=_comparisons(measured.reads),
        bare=_bare(measured.bare, choose),
        edge=[_edge(error) for error in measured.edge_errors],
        loads=_loads(measured.loads, choose),
    )


def _of(latencies: Sequence[float], per_mille: int) -> float:
    return percentile(sorted(latencies), per_mille)


def _median(values: Sequence[float], choose: random.Random) -> Interval:
    return bootstrap(values, median, choose)


def _reads(runs: list[ReadRun], choose: random.Random) -> list[ReadFigures]:
    figures: list[ReadFigures] = []
    for in_window in sorted({run.in_window for run in runs}):
        of_it = [run for run in runs if run.in_window == in_window]
        p50_us, p99_us = (
            _median([_of(run.latencies_us, step) for run in of_it], choose)
            for step in PERCENTILES.values()
        )
        figures.append(
            ReadFigures(
                in_window=in_window,
                rounds=len(of_it),
                reads=sum(len(run.latencies_us) for run in of_it),
                p50_us=p50_us,
                p99_us=p99_us,
                posted=median(run.posted for run in of_it),
                resident_mib=median(run.resident_mib for run in of_it),
                fill_per_second=round(in_window / max(median(run.fill_seconds for run in of_it), 1e-3)),
            )
        )
    return figures


def _slope(runs: list[ReadRun], per_mille: int, choose: random.Random) -> Slope:
    rounds: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        point = math.log10(run.in_window), _of(run.latencies_us, per_mille)
        rounds.setdefault(run.round, []).append(point)

    def slope(drawn: Sequence[list[tuple[float, float]]]) -> float:
        return theil_sen([point for points in drawn for point in points])

    def relative(drawn: Sequence[list[tuple[float, float]]]) -> float:
        return 100 * slope(drawn) / median(latency for points in drawn for _, latency in points)

    # Each slope is the median of hundreds: fewer resamples than elsewhere do.
    points = list(rounds.values())
    return Slope(
        us_per_decade=bootstrap(points, slope, choose, 400),
        percent_per_decade=bootstrap(points, relative, choose, 400),
    )


def _comparisons(runs: list[ReadRun]) -> list[Comparison]:
    numbers = sorted({run.in_window for run in runs})
    many = numbers.pop()
    by_place = {(run.in_window, run.round): run for run in runs}
    rounds = sorted({run.round for run in runs})

    def compare(few: int, per_mille: int) -> Equivalence:
        ratios = [
            _of(by_place[many, round_].latencies_us, per_mille)
            / _of(by_place[few, round_].latencies_us, per_mille)
            for round_ in rounds
        ]
        return equivalence(ratios, MARGIN)

    return [
        Comparison(few=few, many=many, p50=compare(few, 500), p99=compare(few, 990)) for few in numbers
    ]


def _bare(runs: list[BareRun], choose: random.Random) -> list[BareFigures]:
    figures: list[BareFigures] = []
    for structure in STRUCTURES:
        for in_window in sorted({run.in_window for run in runs}):
            of_it = [run for run in runs if (run.structure, run.in_window) == (structure, in_window)]
            p50_us, p99_us = (
                _median([_of(run.latencies_us, step) for run in of_it], choose)
                for step in PERCENTILES.values()
            )
            figures.append(
                BareFigures(structure=structure, in_window=in_window, p50_us=p50_us, p99_us=p99_us)
            )
    return figures


def _edge(error: EdgeError) -> EdgeFigures:
    sizes = [abs(percent) for percent in error.percent]
    return EdgeFigures(
        structure=error.structure,
        span_seconds=error.span_seconds,
        worst_percent=max(sizes),
        mean_percent=fmean(sizes),
    )


def _loads(runs: list[LoadRun], choose: random.Random) -> list[LoadFigures]:
    figures: list[LoadFigures] = []
    for store, load, request in dict.fromkeys((run.store, run.load, run.request) for run in runs):
        of_it = [run for run in runs if (run.store, run.load, run.request) == (store, load, request)]

        def steps(
            ladder: Callable[[LoadRun], list[float]], of_it: list[LoadRun] = of_it
        ) -> dict[str, Interval]:
            return {
                name: _median([ladder(run)[step - 1] for run in of_it], choose)
                for name, step in LOAD_PERCENTILES.items()
            }

        offered = [run.offered_per_second for run in of_it if run.offered_per_second is not None]
        figures.append(
            LoadFigures(
                store=store,
                load=load,
                request=request,
                rounds=len(of_it),
                offered_per_second=median(offered) if offered else None,
                answered_per_second=_median([run.answered_per_second for run in of_it], choose),
                from_schedule_ms=steps(lambda run: run.from_schedule_ms),
                from_send_ms=steps(lambda run: run.from_send_ms),
                failed=sum(run.failed for run in of_it),
                client_late_ms=max(run.client_late_ms for run in of_it),
                service_busy_percent=median(run.service_busy_percent for run in of_it),
            )
        )
    return sorted(
        figures,
        key=lambda each: (each.store.lower(), each.request, each.load != "closed loop", each.load),
    )
