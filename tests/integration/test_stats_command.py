"""`python -m app stats`: one look, or one after the other, on a terminal and in a pipe."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nginx import free_port
from tests.support.process import WAIT_SECONDS, ServiceProcess

HEAD = re.compile(r"http://127\.0\.0\.1:\d+, the last 60 s as of \d{4}-\d\d-\d\dT[\d:.]+Z")


def environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **variables}


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "stats", *words],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


@contextlib.contextmanager
def watching(url: str, output: int) -> Iterator[subprocess.Popen[bytes]]:
    """A watch that writes to a file, and is ended."""
    command = [sys.executable, "-m", "app", "stats", "--watch", "--interval", "0.1", "--url", url]
    process = subprocess.Popen(command, env=environment(), stdout=output, stderr=subprocess.PIPE)
    os.close(output)
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def interrupted(process: subprocess.Popen[bytes]) -> None:
    """Whether an interrupt ends it, and without a word."""
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_one_look_shows_each_currency_exactly(tmp_path: Path) -> None:
    with ServiceProcess({}) as service, service.client() as client:
        url = str(client.base_url).rstrip("/")
        now = time.time_ns() // 1_000_000
        for amount, currency in (("0.1", "EUR"), ("0.2", "EUR"), ("92233720368.54775807", "USD")):
            body = {"amount": amount, "currency": currency, "timestamp": now}
            assert client.post("/transactions", json=body).status_code == 201
        told = run("--url", url)
        assert (told.returncode, told.stderr) == (0, "")
        head, *rows = told.stdout.splitlines()
        assert HEAD.fullmatch(head)
        assert [row.split() for row in rows] == [
            ["count", "sum", "avg", "min", "max"],
            ["all", "3", "92233720368.84775807", "30744573456.28258602", "0.10", "92233720368.54775807"],
            ["EUR", "2", "0.30", "0.15", "0.10", "0.20"],
            ["USD", "1", *["92233720368.54775807"] * 4],
        ]
        told = run("--url", url, "--window", "2m")
        assert (told.returncode, told.stdout) == (1, "")
        assert "422 invalid_parameter" in told.stderr


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    jwt = {
        "AUTH": "jwt",
        "JWT_SECRET": "correct horse battery staple, and then some",
        "JWT_ISSUER": "https://id.example",
        "JWT_AUDIENCE": "millrace",
    }
    made = subprocess.run(
        [sys.executable, "-m", "app", "token", "--sub", "alice"],
        env=environment(**jwt),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "token").write_text(made)
    with ServiceProcess(jwt) as service:
        url = service.serving()
        told = run("--url", url)
        assert (told.returncode, told.stdout) == (1, "")
        assert "401 unauthorized" in told.stderr
        assert run("--url", url, "--token-file", str(tmp_path / "token")).returncode == 0
        assert run("--url", url, TOKEN=made).returncode == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--url", "ftp://x"), "an address looks like"),
        (("--watch", "--interval", "0"), "is not in the range"),
        (("--token-file", "/nowhere"), "No such file"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], complaint: str) -> None:
    told = run(*words)
    assert told.returncode == 2
    assert complaint in told.stderr


def test_a_pipe_has_a_line_each_time_and_hears_once_that_the_service_is_gone_and_back() -> None:
    port = free_port()
    reading, writing = os.pipe()
    with watching(f"http://127.0.0.1:{port}", writing) as process, os.fdopen(reading) as lines:
        assert next(lines) == "no answer: connection refused\n"
        with ServiceProcess({"PORT": str(port)}) as service:
            service.serving()
            assert next(lines) == "the service is back\n"
            for _ in range(2):
                line = next(lines)
                assert re.fullmatch(r"\S+Z  all count=0 sum=0.00 avg=0.00 min=0.00 max=0.00\n", line)
        while (line := next(lines)).endswith("max=0.00\n"):
            pass
        assert line.startswith("no answer: ")
        interrupted(process)
        assert lines.read() == ""
        assert "\x1b" not in line


def test_a_reader_that_has_seen_enough_ends_a_watch() -> None:
    reading, writing = os.pipe()
    with ServiceProcess({}) as service, watching(service.serving(), writing) as process:
        with os.fdopen(reading) as lines:
            next(lines)
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_terminal_is_redrawn_in_place() -> None:
    ours, theirs = pty.openpty()
    with ServiceProcess({}) as service, watching(service.serving(), theirs) as process:
        seen = b""
        while seen.count(b"\x1b[J") < 3:
            seen += os.read(ours, 4096)
        interrupted(process)
    os.close(ours)
    first, *redrawn = seen.decode().split("\x1b[")
    heights = {first.count("\n")} | {int(part[:-1]) for part in redrawn if part.endswith("F")}
    # Always as many lines up as there were.
    assert len(heights) == 1
    assert HEAD.match(first)
