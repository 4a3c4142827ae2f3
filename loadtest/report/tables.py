"""The tables of the page. Every figure in them names its place in the JSON."""

import html
from collections.abc import Iterable, Sequence
from typing import Final

from loadtest.report.digest import Figures, LoadFigures
from loadtest.report.ink import power
from loadtest.report.results import Circumstances
from loadtest.report.statistics import Interval

_KINDS: Final = {
    "95 %": ' class="interval"',
    "90 %": ' class="interval"',
    **dict.fromkeys(("", "N", "store", "posts", "timed from", "verdict", "span"), ' class="text"'),
}


def cell(path: str, value: float, digits: int) -> str:
    """One figure, rounded to so many fraction digits."""
    return f'<td data-figure="{path}">{value:.{digits}f}</td>'


def between(path: str, interval: Interval, digits: int) -> str:
    """A figure and its interval, as two cells; of a single round there is none."""
    low, high = (
        f'<span data-figure="{path}.{name}">{bound:.{digits}f}</span>'
        for name, bound in (("low", interval.low), ("high", interval.high))
    )
    bounds = "–" if interval.low == interval.high else f"{low} to {high}"  # noqa: RUF001 - a dash, for none
    return f'{cell(f"{path}.value", interval.value, digits)}<td class="interval">{bounds}</td>'


def words(text: str) -> str:
    """A cell of words."""
    return f'<td class="text">{html.escape(text)}</td>'


def table(caption: str, head: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """A table of ready cells."""
    heads = "".join(f"<th{_KINDS.get(name, '')}>{name}</th>" for name in head)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="table"><table class="{kind}"><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def reads_table(figures: Figures) -> str:
    """`GET /stats` at every N."""
    rows = (
        words(power(each.in_window))
        + cell(f"reads.{place}.rounds", each.rounds, 0)
        + cell(f"reads.{place}.reads", each.reads, 0)
        + between(f"reads.{place}.p50_us", each.p50_us, 1)
        + between(f"reads.{place}.p99_us", each.p99_us, 1)
        + cell(f"reads.{place}.posted", each.posted, 0)
        + cell(f"reads.{place}.resident_mib", each.resident_mib, 1)
        + cell(f"reads.{place}.fill_per_second", each.fill_per_second, 0)
        for place, each in enumerate(figures.reads)
    )
    head = (
        *("N", "rounds", "reads", "p50, µs", "95 %", "p99, µs", "95 %"),
        *("posted meanwhile", "memory, MiB", "filled /s"),
    )
    return table("GET /stats by N: medians of the rounds and their intervals.", head, rows)


def comparisons_table(figures: Figures) -> str:
    """The most transactions against fewer."""
    rows = (
        words(f"{power(each.many)} against {power(each.few)}")
        + words(name)
        + between(f"comparisons.{place}.{name}.ratio", test.ratio, 4)
        + cell(f"comparisons.{place}.{name}.p_value", test.p_value, 4)
        + words("equivalent" if test.holds else "not shown")
        for place, each in enumerate(figures.comparisons)
        for name, test in (("p50", each.p50), ("p99", each.p99))
    )
    head = ("N", "", "ratio", "90 %", "p", "verdict")
    margin = figures.comparisons[0].p50.margin
    caption = f"Two one-sided tests of equivalence within a factor of {margin:g}, paired by round."
    return table(caption, head, rows)


def slopes_table(figures: Figures) -> str:
    """The slope of each percentile."""
    rows = (
        words(name)
        + between(f"slopes.{name}.us_per_decade", slope.us_per_decade, 2)
        + between(f"slopes.{name}.percent_per_decade", slope.percent_per_decade, 2)
        for name, slope in figures.slopes.items()
    )
    head = ("", "µs for each tenfold of N", "95 %", "% for each tenfold of N", "95 %")
    return table("Slope of GET /stats (Theil and Sen).", head, rows)


def bare_table(figures: Figures) -> str:
    """The bare structures at every N."""
    rows = (
        words(each.structure)
        + words(power(each.in_window))
        + between(f"bare.{place}.p50_us", each.p50_us, 2)
        + between(f"bare.{place}.p99_us", each.p99_us, 2)
        for place, each in enumerate(figures.bare)
    )
    head = ("structure", "N", "p50, µs", "95 %", "p99, µs", "95 %")
    return table("One read of a bare structure that holds one currency.", head, rows)


def edge_table(figures: Figures) -> str:
    """How far counts are off."""
    rows = (
        words(each.structure)
        + words(f"{each.span_seconds} s")
        + cell(f"edge.{place}.worst_percent", each.worst_percent, 2)
        + cell(f"edge.{place}.mean_percent", each.mean_percent, 2)
        for place, each in enumerate(figures.edge)
    )
    head = ("structure", "span", "worst error of the count, %", "mean, %")
    return table("Counts against exact ones.", head, rows)


def latencies_table(figures: Figures, request: str) -> str:
    """How long answers took under every load."""
    rows: list[str] = []
    for place, each in _of(figures, request):
        ways = (("from_schedule_ms", "the schedule"), ("from_send_ms", "the send"))
        # The closed loop has no schedule.
        for field, way in ways if each.offered_per_second is not None else ways[1:]:
            steps: dict[str, Interval] = getattr(each, field)
            path = f"loads.{place}.{field}"
            cells = (between(f"{path}.{name}", interval, 2) for name, interval in steps.items())
            rows.append("".join((words(each.store), words(_posts(each)), words(way), *cells)))
    percentiles = ("p50, ms", "95 %", "p99, ms", "95 %", "p99.9, ms", "95 %")
    head = ("store", "posts", "timed from", *percentiles)
    return table(f"{request}: medians of the rounds and their intervals.", head, rows)


def loads_table(figures: Figures, request: str) -> str:
    """How much was asked, and whether client and service kept up."""
    rows = (
        words(each.store)
        + words(_posts(each))
        + (
            words("")
            if each.offered_per_second is None
            else cell(f"loads.{place}.offered_per_second", each.offered_per_second, 0)
        )
        + between(f"loads.{place}.answered_per_second", each.answered_per_second, 0)
        + cell(f"loads.{place}.failed", each.failed, 0)
        + cell(f"loads.{place}.client_late_ms", each.client_late_ms, 3)
        + cell(f"loads.{place}.service_busy_percent", each.service_busy_percent, 0)
        for place, each in _of(figures, request)
    )
    head = (
        *("store", "posts", "due /s", "answered /s", "95 %"),
        *("failed", "client late (p99), ms", "service busy, %"),
    )
    return table(f"{request}: what was asked, and who kept up.", head, rows)


def _of(figures: Figures, request: str) -> list[tuple[int, LoadFigures]]:
    """The loads of that request, with their places in the JSON."""
    return [(place, each) for place, each in enumerate(figures.loads) if each.request == request]


def _posts(figures: LoadFigures) -> str:
    is_closed = figures.offered_per_second is None
    return figures.load if is_closed else f"{figures.load} of capacity"


def circumstances_table(circumstances: Circumstances) -> str:
    """Machine and versions."""
    rows = (
        words(name) + words(value)
        for name, value in (*circumstances.machine.items(), *circumstances.versions.items())
    )
    return table("Machine and versions.", ("", ""), rows, "words")
