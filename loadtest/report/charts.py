"""The charts: each takes what was measured or its figures, and draws nothing else."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.report.bare import NAIVE, RING, WINDOW
from loadtest.report.digest import BareFigures, Figures, ReadFigures
from loadtest.report.ink import (
    Palette,
    count_axis,
    decade_colour,
    figure,
    legend_above,
    microseconds,
    milliseconds,
    power,
    time_axis,
)
from loadtest.report.loads import CLOSED, MEMORY, POST, SQLITE, STATS
from loadtest.report.plan import STATS_TARGET_MS
from loadtest.report.results import LADDER_STEPS, LoadRun, Measured
from loadtest.report.statistics import Interval, percentile

_CURVE_POINTS: Final = 400
_COMPARISON_REACH_MAX: Final = 12
_CURVE_END_PER_MILLE: Final = 995
_COLOURS: Final = {NAIVE: Palette.orange, RING: Palette.purple, WINDOW: Palette.green}
_LABELS: Final = {
    NAIVE: "naive list (bare)",
    RING: "ring of 60 seconds (bare, inexact)",
    WINDOW: "Millrace's window (bare)",
}


def latency_chart(figures: Figures) -> Figure:
    """Latency over N: the service, and the bare structures beside it."""
    drawn, (axes,) = figure(8.6, 5.0)
    draw_latency(axes, figures)
    return drawn


def draw_latency(axes: Axes, figures: Figures) -> None:
    """The chart of `latency_chart`, on axes of its own or among others."""
    _served(axes, figures.reads)
    for structure, colour in _COLOURS.items():
        _bare(axes, [each for each in figures.bare if each.structure == structure], colour)
    count_axis(axes, sorted({each.in_window for each in figures.bare}))
    time_axis(axes, "y", microseconds)
    axes.set_ylabel("one read")
    legend_above(axes, 2)


def _served(axes: Axes, reads: Sequence[ReadFigures]) -> None:
    numbers = [each.in_window for each in reads]
    for label, line, marker, intervals in (
        ("GET /stats, p50", "-", "o", [each.p50_us for each in reads]),
        ("GET /stats, p99", "--", "s", [each.p99_us for each in reads]),
    ):
        axes.errorbar(
            numbers,
            [each.value for each in intervals],
            yerr=_bars(intervals),
            color=Palette.blue,
            linestyle=line,
            marker=marker,
            markersize=4,
            label=label,
        )


def _bare(axes: Axes, bare: Sequence[BareFigures], colour: str) -> None:
    axes.errorbar(
        [each.in_window for each in bare],
        [each.p50_us.value for each in bare],
        yerr=_bars([each.p50_us for each in bare]),
        color=colour,
        marker="o",
        markersize=3.5,
        label=f"{_LABELS[bare[0].structure]}, p50",
    )


def distribution_chart(measured: Measured) -> Figure:
    """How the latencies of every N are distributed, laid over each other."""
    drawn, (axes,) = figure(8.6, 4.2)
    draw_distribution(axes, measured)
    return drawn


def draw_distribution(axes: Axes, measured: Measured) -> None:
    """The chart of `distribution_chart`, on axes of its own or among others."""
    ends: list[float] = []
    for place, in_window in enumerate(sorted({run.in_window for run in measured.reads})):
        pooled = sorted(
            latency
            for run in measured.reads
            if run.in_window == in_window
            for latency in run.latencies_us
        )
        shares = [round(1000 * step / _CURVE_POINTS) for step in range(1, _CURVE_POINTS + 1)]
        axes.plot(
            [percentile(pooled, share) for share in shares],
            [share / 10 for share in shares],
            color=decade_colour(place),
            linewidth=1.4,
            label=power(in_window),
        )
        ends += pooled[0], percentile(pooled, _CURVE_END_PER_MILLE)
    time_axis(axes, "x", microseconds, steps=(1, 2, 5))
    axes.set_xlim(min(ends), max(ends))
    axes.set_ylim(0, 100)
    axes.set_xlabel("GET /stats")
    axes.set_ylabel("share of reads answered by then, %")
    axes.legend(loc="lower right", title="N")


def comparison_chart(figures: Figures) -> Figure:
    """The most transactions against fewer, with the margin of equivalence."""
    drawn, (axes,) = figure(8.6, 0.42 * len(figures.comparisons) + 1.5)
    margin = 100 * (figures.comparisons[0].p50.margin - 1)
    axes.axvspan(-margin, margin, color=Palette.rule, alpha=0.45, linewidth=0)
    axes.axvline(0, color=Palette.quiet, linewidth=0.8)
    places = range(len(figures.comparisons))
    for label, shift, marker, colour, ratios in (
        ("p50", -0.13, "o", Palette.blue, [each.p50.ratio for each in figures.comparisons]),
        ("p99", 0.13, "s", Palette.orange, [each.p99.ratio for each in figures.comparisons]),
    ):
        percents = [Interval(*(100 * (bound - 1) for bound in _bounds(each))) for each in ratios]
        axes.errorbar(
            [each.value for each in percents],
            [place + shift for place in places],
            xerr=_bars(percents),
            color=colour,
            marker=marker,
            markersize=4.5,
            linestyle="none",
            label=f"{label}, with its 90 % interval",
        )
    axes.set_yticks(
        list(places), [f"{power(each.many)} against {power(each.few)}" for each in figures.comparisons]
    )
    axes.set_ylim(len(figures.comparisons) - 0.5, -0.5)
    left, right = axes.get_xlim()
    # Noise may reach far; the margin has to stay visible beside it.
    reach = min(max(2 * margin, -left, right), _COMPARISON_REACH_MAX * margin)
    axes.set_xlim(-reach, reach)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"difference of the latency, % (shaded: the margin of ±{margin:.0f} %)")
    legend_above(axes, 2)
    return drawn


def memory_chart(measured: Measured, figures: Figures) -> Figure:
    """Resident memory over N."""
    drawn, (axes,) = figure(8.6, 3.4)
    axes.plot(
        [run.in_window for run in measured.reads],
        [run.resident_mib for run in measured.reads],
        color=Palette.quiet,
        marker="o",
        markersize=3,
        alpha=0.6,
        linestyle="none",
        label="each process",
    )
    axes.plot(
        [each.in_window for each in figures.reads],
        [each.resident_mib for each in figures.reads],
        color=Palette.blue,
        label="median",
    )
    count_axis(axes, [each.in_window for each in figures.reads])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("resident memory, MiB")
    legend_above(axes, 2)
    return drawn


def edge_chart(measured: Measured) -> Figure:
    """How far the count over the whole window is off while time goes on."""
    drawn, (axes,) = figure(8.6, 3.4)
    whole = max(error.span_seconds for error in measured.edge_errors)
    for error in measured.edge_errors:
        if error.span_seconds == whole:
            axes.plot(
                [elapsed / 1000 for elapsed in error.elapsed_ms],
                error.percent,
                color=_COLOURS[error.structure],
                label=_LABELS[error.structure],
            )
    axes.set_xlabel("time, s")
    axes.set_ylabel(f"error of the count over {whole} s, %")
    legend_above(axes, 2)
    return drawn


def post_chart(measured: Measured) -> Figure:
    """Latency of a post at every percentile, by how it is timed."""
    drawn, panels = figure(8.6, 4.6, panels=2)
    for axes, store in zip(panels, (MEMORY, SQLITE), strict=True):
        runs = [run for run in measured.loads if (run.store, run.request) == (store, POST)]
        loads = sorted({run.load for run in runs} - {CLOSED})
        _percentile_curve(axes, [run for run in runs if run.load == CLOSED], CLOSED, Palette.quiet)
        for load, colour in zip(loads, (Palette.blue, Palette.orange), strict=True):
            of_it = [run for run in runs if run.load == load]
            _percentile_curve(axes, of_it, f"{load} of it, from the schedule", colour)
            _percentile_curve(axes, of_it, f"{load} of it, from the send", colour, is_from_send=True)
        axes.set_title(store)
        time_axis(axes, "y", milliseconds)
        marks = (0, 50, 90, 99, 99.9)
        axes.set_xticks([_nines(mark / 100) for mark in marks], [f"{mark:g}" for mark in marks])
        axes.set_xlabel("percentile")
    low = min(axes.get_ylim()[0] for axes in panels)
    high = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(low, high)
    panels[0].set_ylabel("POST /transactions")
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper left", ncols=3)
    return drawn


def _percentile_curve(
    axes: Axes, runs: Sequence[LoadRun], label: str, colour: str, *, is_from_send: bool = False
) -> None:
    ladders = [run.from_send_ms if is_from_send else run.from_schedule_ms for run in runs]
    steps = range(1, LADDER_STEPS)
    axes.plot(
        [_nines(step / LADDER_STEPS) for step in steps],
        [median(ladder[step - 1] for ladder in ladders) for step in steps],
        color=colour,
        linestyle=":" if is_from_send else "-",
        label=label,
    )


def _nines(share: float) -> float:
    """A scale of equal steps from 90 to 99 to 99.9 %: the tail is what such a chart is for."""
    return -math.log10(1 - share)


def under_load_chart(measured: Measured) -> Figure:
    """`GET /stats` while transactions are posted, each round a curve."""
    drawn, (axes,) = figure(8.6, 3.6)
    for place, run in enumerate(run for run in measured.loads if run.request == STATS):
        axes.plot(
            run.from_schedule_ms,
            [100 * step / LADDER_STEPS for step in range(1, LADDER_STEPS + 1)],
            color=Palette.blue,
            linewidth=1.3,
            label="" if place else f"each round, posts on {run.store} at {run.load} of capacity",
        )
    axes.axvline(
        STATS_TARGET_MS,
        color=Palette.orange,
        linestyle="--",
        linewidth=1.2,
        label=f"target of the 99th percentile, {STATS_TARGET_MS:g} ms",
    )
    axes.axhline(99, color=Palette.quiet, linestyle=":", linewidth=1)
    time_axis(axes, "x", milliseconds, steps=(1, 2, 5))
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 99])
    axes.set_xlabel("GET /stats, from the schedule")
    axes.set_ylabel("share answered by then, %")
    legend_above(axes, 2)
    return drawn


def readme_picture(measured: Measured, figures: Figures) -> Figure:
    """The two charts that say it all, side by side."""
    drawn, (left, right) = figure(13.2, 5.0, panels=2)
    draw_latency(left, figures)
    draw_distribution(right, measured)
    return drawn


def _bounds(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _bars(intervals: Sequence[Interval]) -> list[list[float]]:
    """Lengths of error bars; a value may lie outside of its interval by a rounding."""
    return [
        [max(each.value - each.low, 0) for each in intervals],
        [max(each.high - each.value, 0) for each in intervals],
    ]
