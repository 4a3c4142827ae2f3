"""The report as its readers meet it: a command, a page that needs nothing, measured figures."""

import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import pytest

from loadtest.report.bare import NaiveList, RingOfSeconds
from loadtest.report.digest import Report
from loadtest.report.generator import Stream, drive
from loadtest.report.loads import CLOSED

ROOT: Final = Path(__file__).parents[2]
SECONDS_MAX: Final = 60.0


def run_report(directory: Path, *options: str) -> str:
    command = [sys.executable, "-m", "loadtest.report", "--tiny", "--output", str(directory), *options]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


class Cells(HTMLParser):
    """The page's figures by the place in the JSON that they name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.figures: dict[str, str] = {}
        self._path: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._path = dict(attrs).get("data-figure")

    def handle_data(self, data: str) -> None:
        if self._path is not None:
            assert self._path not in self.figures
            self.figures[self._path] = data
            self._path = None


def numbers(value: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in the JSON, by its path."""
    if isinstance(value, dict | list):
        for name, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(member, f"{path}.{name}" if path else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One report, smaller still than the quick one, for all tests here."""
    written = tmp_path_factory.mktemp("report")
    assert "This is the tiny run" in run_report(written)
    return written


@pytest.fixture(scope="module")
def page(directory: Path) -> str:
    return (directory / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def report(directory: Path) -> Report:
    return msgspec.json.decode((directory / "report.json").read_bytes(), type=Report)


@pytest.fixture(scope="module")
def figures(directory: Path) -> dict[str, float]:
    """The figures of the JSON by their place in it."""
    return dict(numbers(json.loads((directory / "report.json").read_bytes())["figures"]))


def test_nothing_else_is_left_behind(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == [
        "report.html",
        "report.json",
        "report.png",
    ]
    assert (directory / "report.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_page_needs_nothing_from_anywhere(page: str) -> None:
    without_namespaces = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?:|//[\w-]+\.\w", without_namespaces)
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b|@import", page)
    assert set(re.findall(r"url\(([^)]*)\)", page)) <= set(re.findall(r"url\((#[^)]*)\)", page))
    assert str(ROOT) not in page


def test_no_id_of_a_chart_is_that_of_another(page: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    ids = [set(re.findall(r'\bid="([^"]*)"', chart)) for chart in charts]
    assert len(charts) == 7
    assert sum(map(len, ids)) == len(set().union(*ids))
    for chart, own in zip(charts, ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^)"]*)', chart)) <= own


def test_the_figures_of_the_page_are_those_of_the_json(page: str, figures: dict[str, float]) -> None:
    shown = Cells(page).figures
    assert shown
    for path, text in shown.items():
        digits = len(text.partition(".")[2])
        assert text == f"{figures[path]:.{digits}f}", path


def test_every_figure_of_the_json_is_in_the_page(
    page: str, report: Report, figures: dict[str, float]
) -> None:
    closed = [place for place, load in enumerate(report.figures.loads) if load.load == CLOSED]
    # What is no figure but names one, and a closed loop's schedule, which it has not.
    elsewhere = re.compile(
        r"\.(in_window|few|many|margin|span_seconds)$|^loads\.\d+\.rounds$|"
        rf"^loads\.({'|'.join(map(str, closed))})\.from_schedule_ms\."
    )
    missing = {path for path in figures if not elsewhere.search(path)} - Cells(page).figures.keys()
    for path in missing:
        # Of a single round there is no interval to show.
        interval, _, bound = path.rpartition(".")
        assert bound in ("low", "high"), path
        assert figures[f"{interval}.low"] == figures[f"{interval}.high"], path


def test_the_figures_of_the_json_are_those_of_the_raw_latencies(report: Report) -> None:
    for of_n in report.figures.reads:
        rounds = [
            sorted(run.latencies_us) for run in report.measured.reads if run.in_window == of_n.in_window
        ]
        assert [len(latencies) for latencies in rounds] == [100, 100]
        assert of_n.p50_us.value == pytest.approx(median(latencies[49] for latencies in rounds))
        assert of_n.p99_us.value == pytest.approx(median(latencies[98] for latencies in rounds))


def test_drawn_again_from_the_json_the_page_is_the_same(directory: Path, page: str) -> None:
    run_report(directory, "--redraw")
    assert (directory / "report.html").read_text("utf-8") == page


@contextlib.contextmanager
def stalling_server(after: int, seconds: float) -> Iterator[tuple[str, int]]:
    """Answers 201 on one connection, and is deaf for a while after so many answers."""
    answer = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        answered = 0
        with connection:
            while request := connection.recv(65_536):
                answered += 1
                if answered == after:
                    time.sleep(seconds)
                assert request.startswith(b"POST")
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        thread.join(SECONDS_MAX)
        listener.close()
    assert not thread.is_alive()


def test_an_open_schedule_counts_the_wait_behind_a_stall_and_a_closed_loop_does_not() -> None:
    def make() -> bytes:
        return b"POST / HTTP/1.1\r\n\r\n"

    def stalled(latencies_ns: list[int]) -> int:
        return sum(latency >= 100_000_000 for latency in latencies_ns)

    with stalling_server(after=20, seconds=0.3) as address:
        stream = Stream(make, connections=1, per_second=200, wanted=201)
        drive(address, [stream], 0.6)
    assert len(stream.from_schedule_ns) == 120
    assert stream.failed == 0
    assert stalled(stream.from_send_ns) <= 3
    # Every 5 ms of the first 200 ms of the stall, a request was due that had to wait 100 ms or more.
    assert stalled(stream.from_schedule_ns) >= 35
    assert max(stream.from_schedule_ns) >= 290_000_000


def test_the_ring_of_seconds_is_wrong_by_less_than_a_second_and_the_list_is_not() -> None:
    choose = random.Random(20_260_102)
    ring, naive = RingOfSeconds(), NaiveList()
    times: list[int] = []
    now_ms = 1_767_323_045_678
    for _ in range(2000):
        now_ms += choose.randint(0, 100)
        timestamp_ms = now_ms - choose.choice((0, 0, 500, 9000))
        times.append(timestamp_ms)
        ring.record(timestamp_ms, 5)
        naive.record(timestamp_ms, 5)
        from_ms = now_ms - choose.randint(1, 60_000)
        assert naive.since(from_ms).count == sum(time_ms >= from_ms for time_ms in times)
        most = sum(time_ms > from_ms - 1000 for time_ms in times)
        least = sum(time_ms >= from_ms + 1000 for time_ms in times)
        assert least <= ring.since(from_ms).count <= most
