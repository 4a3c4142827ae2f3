"""The load suite against the service: what it sends is answered as it expects, and it can fail."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from loadtest.scenarios import (
    BATCH_ARRAY,
    BATCH_ITEMS,
    BATCH_LINES,
    BROKEN,
    LATE,
    LOOKS,
    SINGLE,
    SINGLE_IN_BURST,
    WRONG,
)
from tests.support.process import ServiceProcess

ROOT: Final = Path(__file__).parents[2]
SECONDS_MAX: Final = 30.0
LOOKED_AT: Final = {look.name for look in LOOKS}


class Loaded:
    """What one run of locust said, wrote and returned."""

    def __init__(self, url: str, summary: Path, *options: str) -> None:
        # A process of its own, as locust replaces parts of the standard library in the one it runs in.
        command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
        command += ["--locustfile", "loadtest/locustfile.py", "--host", url, "--spawn-rate", "100"]
        run = subprocess.run(
            [*command, "--summary-json", str(summary), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS_MAX,
        )
        self.out = run.stdout
        self.status = run.returncode
        assert summary.exists(), self.out
        self.summary: dict[str, Any] = json.loads(summary.read_text("utf-8"))
        self.requests = {each["name"]: each["requests"] for each in self.summary["names"]}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ServiceProcess({}) as service:
        yield service.serving()


def test_every_kind_of_request_is_sent_and_answered_rightly(url: str, tmp_path: Path) -> None:
    run = Loaded(url, tmp_path / "run.json", "--users", "10", "--run-time", "3s", "--burst", "28")
    assert run.status == 0, run.out
    assert run.summary["failures"] == 0, run.out
    posted = {SINGLE, SINGLE_IN_BURST, BATCH_ARRAY, BATCH_LINES, LATE, BROKEN, WRONG}
    assert run.requests.keys() == posted | LOOKED_AT
    batches = run.requests[BATCH_ARRAY] + run.requests[BATCH_LINES]
    singles = run.requests[SINGLE] + run.requests[SINGLE_IN_BURST]
    assert run.summary["accepted"] == singles + batches * BATCH_ITEMS
    assert f"accepted    {run.summary['accepted']:,} in " in run.out


def test_a_threshold_that_cannot_be_met_is_a_failure(url: str, tmp_path: Path) -> None:
    options = ("--users", "2", "--run-time", "1s", "--p99-below-ms", "0", "Dashboard")
    run = Loaded(url, tmp_path / "run.json", *options)
    assert run.status == 1, run.out
    assert run.summary["failures"] == 0
    assert run.requests.keys() <= LOOKED_AT
    assert "not below 0 ms" in run.out


def test_a_service_that_answers_something_else_is_a_failure(url: str, tmp_path: Path) -> None:
    options = ("--users", "2", "--run-time", "1s", "PostingClient")
    run = Loaded(f"{url}/elsewhere", tmp_path / "run.json", *options)
    assert run.status == 1, run.out
    assert run.summary["accepted"] == 0
    assert "expected 201, got 404" in run.out
