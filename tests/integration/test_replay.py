"""The replay as its users meet it: a command, a service, a summary and an exit status."""

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from tests.support.counterfeit import answering

ROOT: Final = Path(__file__).parents[2]
SAMPLE: Final = ROOT / "loadtest" / "data" / "transactions.ndjson"
SAMPLE_ROWS: Final = 3000
SAMPLE_NEGATIVE_ROWS: Final = 27
SECONDS_MAX: Final = 30.0


class Replayed:
    """What one run said and returned."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.out, self.err = process.communicate(timeout=SECONDS_MAX)
        self.status = process.returncode

    def value(self, name: str) -> str:
        found = re.search(rf"^{re.escape(name)} +(.*)$", self.out, re.MULTILINE)
        assert found, f"no {name!r} in:\n{self.out}{self.err}"
        return found[1]


@contextlib.contextmanager
def running_replay(file: Path, url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "loadtest.replay", str(file), "--url", url, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def replay(file: Path, url: str, *options: str) -> Replayed:
    with running_replay(file, url, *options) as process:
        return Replayed(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_service(**settings: str) -> Iterator[str]:
    """A service of its own on a free port; the value is its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = os.environ | {"PORT": str(port), "DATABASE_URL": "memory://"} | settings
    with subprocess.Popen(
        [sys.executable, "-m", "app"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_healthy(process, url)
            yield url
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_MAX)
            process.kill()


def wait_until_healthy(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the service ended with status {process.returncode}"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    pytest.fail("the service did not become healthy")


def ndjson(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(amount: str = "1.10", **fields: object) -> dict[str, object]:
    return {"user_id": "someone", "amount": amount, "currency": "EUR", **fields}


class TestAgainstTheService:
    def test_the_sample_is_counted_exactly(self) -> None:
        with running_service(ALLOW_NEGATIVE_AMOUNTS="true") as url:
            run = replay(SAMPLE, url)
        assert run.status == 0, run.out + run.err
        assert run.value("sent") == run.value("accepted (201)") == str(SAMPLE_ROWS)
        assert run.value("statistics").startswith("agree: ")
        assert run.value("statistics").endswith("CHF, EUR, GBP, USD")

    def test_exactly_the_negative_rows_are_refused_by_default(self) -> None:
        with running_service() as url:
            run = replay(SAMPLE, url)
        assert run.status == 0, run.out + run.err
        assert run.value("accepted (201)") == str(SAMPLE_ROWS - SAMPLE_NEGATIVE_ROWS)
        assert run.value("refused") == str(SAMPLE_NEGATIVE_ROWS)
        assert re.search(rf"^ +{SAMPLE_NEGATIVE_ROWS} x 422 \w+$", run.out, re.MULTILINE)
        assert run.value("statistics").startswith("agree: ")

    def test_gzip_reads_the_same_as_plain(self, tmp_path: Path) -> None:
        packed = tmp_path / "sample.gz"
        packed.write_bytes(gzip.compress(SAMPLE.read_bytes()))
        with running_service() as url:
            run = replay(packed, url)
        assert run.status == 0, run.out + run.err
        assert run.value("sent") == str(SAMPLE_ROWS)
        assert run.value("refused") == str(SAMPLE_NEGATIVE_ROWS)
        assert run.value("statistics").startswith("agree: ")

    def test_a_window_that_is_not_empty_is_said_and_not_judged(self) -> None:
        with running_service(ALLOW_NEGATIVE_AMOUNTS="true") as url:
            first = replay(SAMPLE, url, "--limit", "7")
            second = replay(SAMPLE, url, "--limit", "7")
        assert first.value("statistics").startswith("agree: ")
        assert second.value("statistics").endswith("was not empty at the start, it held 7")
        assert second.status == 0

    def test_a_run_longer_than_the_window_is_said_and_not_judged(self) -> None:
        with running_service(WINDOW_SECONDS="1") as url:
            run = replay(SAMPLE, url, "--limit", "60", "--rate", "40")
        verdict = run.value("statistics")
        assert re.match(r"not compared: the run took 1\.\d s, the window is only 1 s long", verdict)
        assert run.status == 0

    def test_a_malformed_line_is_named_by_its_number(self, tmp_path: Path) -> None:
        file = ndjson(tmp_path / "rows.ndjson", row(), row())
        with file.open("a") as lines:
            lines.write('\n{"amount": "1.10"\n')
        with running_service() as url:
            run = replay(file, url)
        assert run.status == 2
        assert run.value("accepted (201)") == "2"
        assert re.fullmatch(r"replay: .*rows\.ndjson, line 4: .+\n", run.err)

    def test_without_a_currency_of_its_own_only_the_overall_figures_are_judged(
        self, tmp_path: Path
    ) -> None:
        bare = row(currency=None)
        with running_service(DEFAULT_CURRENCY="CHF") as url:
            run = replay(ndjson(tmp_path / "rows.ndjson", row(), bare), url)
        assert run.value("accepted (201)") == "2"
        assert run.value("statistics") == "agree: overall only: accepted without a currency: 1"

    def test_amounts_keep_every_digit_on_their_way(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.ndjson"
        file.write_text('{"amount":0.10000000}\n{"amount":92233720368.54775807}\n')
        with running_service() as url:
            run = replay(file, url)
        assert run.value("accepted (201)") == "2"
        assert run.value("statistics").startswith("agree: ")


class Counterfeit(ThreadingHTTPServer):
    """A service that misbehaves as told: the real one gives no way to ask for it."""

    daemon_threads = True

    def __init__(self, *, count_off_by: int = 0, answers_lost: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), CounterfeitHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.count_off_by = count_off_by
        self.answers_lost = answers_lost
        self.posted: list[bytes] = []
        self.first_posted = threading.Event()

    def statistics(self) -> bytes:
        count = len(self.posted) + self.count_off_by if self.posted else 0
        figures = {"count": count, "sum": count, "min": min(count, 1), "max": min(count, 1)}
        window = {"window_seconds": 60, "resolution_ms": 1, "as_of": datetime.now(UTC).isoformat()}
        by_currency = {"EUR": figures} if count else {}
        return json.dumps(figures | window | {"by_currency": by_currency}).encode()


class CounterfeitHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Counterfeit

    def do_GET(self) -> None:
        """Answer in chunks, which the service itself never does."""
        body = self.server.statistics()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (body[:7], body[7:]):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self) -> None:
        """Accept, and end the connection after every answer."""
        self.server.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.first_posted.set()
        self.close_connection = True
        if self.server.answers_lost:
            return
        self.send_response(201)
        self.send_header("Content-Length", "2")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""


def counterfeit(
    *, count_off_by: int = 0, answers_lost: bool = False
) -> contextlib.AbstractContextManager[Counterfeit]:
    return answering(Counterfeit(count_off_by=count_off_by, answers_lost=answers_lost))


class TestAgainstACounterfeit:
    def test_statistics_that_differ_are_a_failure(self, tmp_path: Path) -> None:
        with counterfeit(count_off_by=1) as server:
            run = replay(ndjson(tmp_path / "rows.ndjson", row("1"), row("1")), server.url)
        assert run.status == 1
        assert run.value("statistics") == "disagree: overall count: accepted 2, statistics say 3"

    def test_closed_connections_are_opened_again(self, tmp_path: Path) -> None:
        rows = [row("1")] * 20
        with counterfeit() as server:
            run = replay(ndjson(tmp_path / "rows.ndjson", *rows), server.url, "--connections", "2")
        assert run.status == 0, run.out + run.err
        assert run.value("accepted (201)") == "20"

    def test_a_lost_answer_is_reported_and_not_sent_again(self, tmp_path: Path) -> None:
        with counterfeit(answers_lost=True) as server:
            run = replay(ndjson(tmp_path / "rows.ndjson", row("1")), server.url)
        assert run.status == 1
        assert len(server.posted) == 1
        assert run.value("connection errors") == "1"
        assert run.value("statistics").startswith("not compared: answers lost: 1")

    def test_only_four_fields_are_sent_and_the_timestamp_is_now(self, tmp_path: Path) -> None:
        old = row("1", timestamp="2010-12-01T08:34:00", product="LANTERN", metadata={"a": 1})
        before_ms = time.time_ns() // 1_000_000
        with counterfeit() as server:
            replay(ndjson(tmp_path / "rows.ndjson", old), server.url)
        sent = json.loads(server.posted[0])
        assert before_ms <= sent.pop("timestamp") <= time.time_ns() // 1_000_000
        assert sent == {"user_id": "someone", "amount": "1", "currency": "EUR"}

    def test_an_interrupt_prints_the_summary_so_far(self, tmp_path: Path) -> None:
        file = ndjson(tmp_path / "rows.ndjson", *[row("1")] * 100)
        with counterfeit() as server, running_replay(file, server.url, "--rate", "1") as process:
            assert server.first_posted.wait(SECONDS_MAX)
            process.send_signal(signal.SIGINT)
            run = Replayed(process)
        assert run.value("ended early") == "interrupted"
        assert int(run.value("sent")) == len(server.posted) < 100
        assert run.value("statistics").startswith("agree: ")


class TestWrongUsage:
    def test_an_unreachable_service_is_one_line(self) -> None:
        run = replay(SAMPLE, f"http://127.0.0.1:{free_port()}")
        assert run.status == 2
        assert re.fullmatch(r"replay: http://127\.0\.0\.1:\d+: connection refused\n", run.err)
        assert run.out == ""

    @pytest.mark.parametrize(
        ("file", "options", "complaint"),
        [
            ("no-such-file.ndjson", [], "no-such-file.ndjson: no such file or directory"),
            (SAMPLE, ["--url", "ftp://127.0.0.1"], "an address looks like"),
            (SAMPLE, ["--connections", "0"], "--connections must be 1 to"),
            (SAMPLE, ["--rate", "0"], "--rate must be above 0"),
            (SAMPLE, ["--limit", "many"], "argument --limit: invalid int value"),
        ],
    )
    def test_a_wrong_argument_is_one_line(
        self, file: str | Path, options: list[str], complaint: str
    ) -> None:
        run = replay(Path(file), "http://127.0.0.1", *options)
        assert run.status == 2
        assert re.fullmatch(rf"replay: .*{re.escape(complaint)}.*\n", run.err)
