"""The page and the picture: charts, tables and sentences put together, nothing fetched from anywhere."""

import html
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Final

from loadtest.report import charts
from loadtest.report.bare import NAIVE, WINDOW
from loadtest.report.digest import Comparison, Figures
from loadtest.report.ink import power, save_png, style_sheet, styled, svg
from loadtest.report.loads import CLOSED, MEMORY, POST, STATS
from loadtest.report.plan import CONNECTIONS, CURRENCIES, MARGIN, STATS_TARGET_MS
from loadtest.report.reads import FILL_SECONDS
from loadtest.report.results import Measured
from loadtest.report.statistics import Equivalence
from loadtest.report.tables import (
    bare_table,
    circumstances_table,
    comparisons_table,
    edge_table,
    latencies_table,
    loads_table,
    reads_table,
    slopes_table,
)

_BUSY_PERCENT_MIN: Final = 90

_TEMPLATE: Final = Path(__file__).with_name("page.html")


def write_page(directory: Path, measured: Measured, figures: Figures) -> None:
    """Write the page and the picture into a directory."""
    (directory / "report.html").write_text(page(measured, figures), "utf-8")
    with styled():
        save_png(charts.readme_picture(measured, figures), directory / "report.png")


def page(measured: Measured, figures: Figures) -> str:
    """The whole page."""
    circumstances = measured.circumstances
    with styled():
        drawn = {
            "latency_chart": charts.latency_chart(figures),
            "distribution_chart": charts.distribution_chart(measured),
            "comparison_chart": charts.comparison_chart(figures),
            "edge_chart": charts.edge_chart(measured),
            "memory_chart": charts.memory_chart(measured, figures),
            "post_chart": charts.post_chart(measured),
            "under_load_chart": charts.under_load_chart(measured),
        }
        elements = {name: svg(chart, name.partition("_chart")[0]) for name, chart in drawn.items()}
    return Template(_TEMPLATE.read_text("utf-8")).substitute(
        elements,
        style=style_sheet(),
        date=circumstances.date,
        command=html.escape(circumstances.command),
        seed=circumstances.seed,
        minutes=f"{circumstances.seconds / 60:.1f}",
        notes="\n".join(f'<p class="note">{html.escape(note)}</p>' for note in circumstances.notes),
        verdicts="\n".join(f"<li>{sentence}</li>" for sentence in _verdicts(figures)),
        margin=MARGIN,
        limits="\n".join(f'<p class="note">{sentence}</p>' for sentence in _limits(figures)),
        connections=CONNECTIONS,
        currencies=", ".join(CURRENCIES),
        fill_minutes=FILL_SECONDS // 60,
        posts_per_second=circumstances.plan.posts_per_second,
        stats_per_second=circumstances.plan.stats_per_second,
        reads_table=reads_table(figures),
        comparisons_table=comparisons_table(figures),
        slopes_table=slopes_table(figures),
        bare_table=bare_table(figures),
        edge_table=edge_table(figures),
        latencies_table=latencies_table(figures, POST),
        loads_table=loads_table(figures, POST),
        stats_latencies_table=latencies_table(figures, STATS),
        stats_loads_table=loads_table(figures, STATS),
        circumstances_table=circumstances_table(circumstances),
    )


def _verdicts(figures: Figures) -> Iterator[str]:
    """What was found, in sentences that follow from the figures whichever way they went."""
    widest = figures.comparisons[0]
    for name, test in (("p50", widest.p50), ("p99", widest.p99)):
        yield _verdict(name, widest, test)
    changes: list[str] = []
    for name, slope in figures.slopes.items():
        percent = slope.percent_per_decade
        value, low, high = (_signed(each, 2) for each in (percent.value, percent.low, percent.high))
        changes.append(f"the {name} by {value} % ({low} to {high})")
    yield f"Each tenfold of N changes {' and '.join(changes)}."
    bare = {(each.structure, each.in_window): each.p50_us.value for each in figures.bare}
    few, many = (end(in_window for _, in_window in bare) for end in (min, max))
    yield (
        f"From {power(few)} to {power(many)} amounts, a read of a naive list takes "
        f"{_times(bare[NAIVE, many] / bare[NAIVE, few])} as long; one of Millrace's window, "
        f"{_times(bare[WINDOW, many] / bare[WINDOW, few])}."
    )
    for each in figures.loads:
        if each.request == STATS:
            p99_ms = each.from_schedule_ms["p99"].value
            side = "below" if p99_ms < STATS_TARGET_MS else "not below"
            yield (
                f"While {CONNECTIONS} connections post at {each.load} of capacity on {each.store}, "
                f"the p99 of <code>GET /stats</code> is {p99_ms:.2f} ms, {side} the target of "
                f"{STATS_TARGET_MS:g} ms."
            )


def _limits(figures: Figures) -> Iterator[str]:
    """Where the client was the limit, not the service."""
    for each in figures.loads:
        busy_percent = each.service_busy_percent
        # On SQLite a service may well wait: for the disk.
        if (each.store, each.load) == (MEMORY, CLOSED) and busy_percent < _BUSY_PERCENT_MIN:
            yield (
                f"In the closed loop on {MEMORY} the service was busy for {busy_percent:.0f} % of the "
                "time only: the client was the limit, and the capacity is higher than it says here."
            )


def _verdict(name: str, compared: Comparison, test: Equivalence) -> str:
    percent, low, high = (
        _signed(100 * (bound - 1), 1) for bound in (test.ratio.value, test.ratio.low, test.ratio.high)
    )
    shown = "equivalent" if test.holds else "equivalence is not shown"
    return (
        f"At {power(compared.many)} transactions in the window, the {name} of <code>GET /stats</code> "
        f"differs by {percent} % from that at {power(compared.few)} (90 % interval {low} to {high}): "
        f"<b>{shown}</b> within a factor of {test.margin:g} (p = {test.p_value:.4f})."
    )


def _signed(number: float, digits: int) -> str:
    return f"{number:+.{digits}f}".replace("-", "−")  # noqa: RUF001 - a minus sign


def _times(factor: float) -> str:
    return f"{factor:,.0f} times".replace(",", " ") if factor >= 10 else f"{factor:.1f} times"
