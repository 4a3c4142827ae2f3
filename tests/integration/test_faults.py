"""A disk that fails once, at each call in turn: every write and every sync, from the start on.

What may come of it is little: the start stops with one line, or a failure ends the process, or a full
disk refuses and takes again by itself. What was acknowledged is there in any case.
"""

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from tests.support.ledger_file import files_of, rows_in, salvaged_rows, sqlite_url
from tests.support.load import Load
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.stores import nothing, with_sqlite
from tests.support.strace import needs_strace, strace

FAULTS = int(os.environ.get("MILLRACE_FAULTS", "0"))
NEW, USED = "new", "used"
CALLS, ERRORS = ("fdatasync", "pwrite64"), ("EIO", "ENOSPC")
# Where no number is given, the start of a new file and the first commits to one that was there.
CASES = (
    list(itertools.product((NEW, USED), CALLS, ERRORS, range(1, FAULTS + 1)))
    if FAULTS
    else [
        *itertools.product((NEW,), CALLS, ("EIO",), (5,)),
        *itertools.product((USED,), CALLS, ERRORS, (12,)),
    ]
)

EXIT_SECONDS_MAX = 2.0
RECOVERY_SECONDS_MAX = 5.0
ACKNOWLEDGED_ENOUGH = 2000


class Trial:
    """One run of the service on a disk that fails at one call."""

    def __init__(self, service: ServiceProcess, url: str) -> None:
        self._service = service
        self.load = Load(url, connections=4, refusal_pause_seconds=0.02)
        self.was_refused_seconds = 0.0
        self.outlived_failure_seconds = 0.0

    def run(self) -> None:
        """Post until the service has ended by itself, or has gone on for long enough."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            running = asyncio.create_task(self.load.run())
            going_on = asyncio.create_task(self._go_on())
            await asyncio.wait((running, going_on), return_when=asyncio.FIRST_COMPLETED)
            if going_on.done():
                self._service.terminate()
            await running
            going_on.cancel()
        failed_at = self.load.codes.get("store_failed")
        if failed_at is not None:
            await asyncio.to_thread(self._service.exit_status)
            self.outlived_failure_seconds = time.monotonic() - failed_at

    async def _go_on(self) -> None:
        while "store_refused" not in self.load.codes:
            if len(self.load.acknowledged) >= ACKNOWLEDGED_ENOUGH:
                return
            self.load.grown.clear()
            await self.load.grown.wait()
        await self.load.reach(len(self.load.acknowledged) + 1)
        self.was_refused_seconds = time.monotonic() - self.load.codes["store_refused"]


@needs_strace
@pytest.mark.parametrize(("file", "call", "error", "number"), CASES)
def test_a_fault_of_the_disk_is_never_acknowledged(
    file: str, call: str, error: str, number: int, tmp_path: Path
) -> None:
    path = tmp_path / "disk" / "ledger.db"
    environment = {"DATABASE_URL": sqlite_url(path)}
    if file == USED:
        with_sqlite(path, nothing)
    command = strace(tmp_path / "trace", *files_of(path), **{call: f"error={error}:when={number}"})
    with ServiceProcess(environment, command) as service:
        url = service.serving_unless_ended()
        if url is None:
            assert service.exit_status() == 1
            complaint = service.complaint()
            assert complaint.startswith("millrace: cannot use ")
            assert complaint.count("\n") == 1
            return
        trial = Trial(service, url)
        trial.run()
        status = service.exit_status()
    load = trial.load
    rows = salvaged_rows(path, tmp_path / "salvaged")
    load.check(rows)
    assert load.unexplained(rows) == {}
    assert rows_in(path) == rows
    trace = (tmp_path / "trace").read_text().splitlines()
    struck, *others = (line for line in trace if "INJECTED" in line)
    # The feed's thread, too, syncs the directory that it makes its index in.
    assert all(f"<{path.parent}>" in other for other in others)
    # Only that there was no room is outlived, and the sync of a directory, which the start repeats.
    is_outlived = (call, error) == ("pwrite64", "ENOSPC") or f"<{path.parent}>" in struck
    assert ("store_failed" in load.codes) is not is_outlived
    if not is_outlived:
        assert status == 1
        assert trial.outlived_failure_seconds <= EXIT_SECONDS_MAX
    else:
        assert status == 0
        assert trial.was_refused_seconds <= RECOVERY_SECONDS_MAX
    with ServiceProcess(environment) as service, service.client() as client:
        assert client.get("/readyz").status_code == 200


@needs_strace
@pytest.mark.parametrize(
    ("call", "error"), [("pwrite64", "EIO"), ("fdatasync", "EIO"), ("pwrite64", "ENOSPC")]
)
def test_a_fault_of_the_feed_is_no_matter_of_the_ledger(call: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    environment = {"DATABASE_URL": sqlite_url(path)}
    with_sqlite(path, nothing)
    index = path.with_name(path.name + "-feed")
    # Every one from the second on.
    command = strace(
        tmp_path / "trace",
        index,
        index.with_name(index.name + "-wal"),
        **{call: f"error={error}:when=2+"},
    )
    with ServiceProcess(environment, command) as service, service.client() as client:
        for _ in range(20):
            item = {"amount": 1, "timestamp": time.time_ns() // 1_000_000}
            assert client.post("/transactions", json=item).status_code == 201
            answer = client.get("/transactions")
            assert answer.status_code in (200, 503), answer.text
        assert client.get("/stats").json()["count"] == 20
        assert client.get("/readyz").status_code == 200
        service.terminate()
        assert service.exit_status() == 0
    with ServiceProcess(environment) as service, service.client() as client:
        assert len(client.get("/transactions").json()["items"]) == 20
