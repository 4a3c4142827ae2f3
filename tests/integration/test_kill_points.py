"""SIGKILL at chosen calls of the commit path: the sync, each write, the answer, and between them.

Every round starts from the same file, whose WAL is a few commits short of being copied back, so that
the sweep goes through commits, a checkpoint, and the first commits of a WAL that starts over.
"""

import asyncio
import os
import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from app.settings import Settings
from tests.support.ledger_file import Amounts, figures, figures_of, rows_in, salvaged_rows, sqlite_url
from tests.support.load import Load
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.strace import needs_strace, strace
from tests.support.thread import Clock, serve

POINTS = int(os.environ.get("MILLRACE_KILL_POINTS", "4"))
SEED = int(os.environ.get("MILLRACE_KILL_SEED", "20260102"))

WINDOW_SECONDS = 3600
# As in app/store/sqlite.py: there the WAL is copied back.
WAL_PAGES_MAX = 4096
FRAME_BYTES = 4096 + 24
# Some ten commits before that.
WAL_PAGES_LEFT = 30

# By then every one of the points below has had its turn.
ACKNOWLEDGED_MAX = 5000


class Point(NamedTuple):
    """Where a round ends: at the n-th call of that name, or by a kill from outside where it is empty."""

    call: str
    number: int


def points(count: int) -> list[Point]:
    """Calls in turn, near ones densely and far ones spread; every fourth a random moment."""
    generator = random.Random(SEED)
    chosen = []
    for index in range(count):
        step, kind = divmod(index, 4)
        if kind == 0:
            chosen.append(Point("fdatasync", step + 1))
        elif kind == 1:
            # Of every other one anything may be hit: the pages of the checkpoint are four thousand.
            number = generator.randint(1, 4500) if step % 2 else 5 + 2 * step
            chosen.append(Point("pwrite64", number))
        elif kind == 2:
            # Where an answer leaves: what it tells is on the disk, and nobody will hear of it.
            chosen.append(Point("write", generator.randint(10, 400) if step else 80))
        else:
            chosen.append(Point("", generator.randint(0, 1000)))
    return chosen


@pytest.fixture(scope="module")
def nearly_full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a database that was left by a kill shortly before its WAL is copied back."""
    directory = tmp_path_factory.mktemp("nearly-full")
    path = directory / "ledger.db"
    with ServiceProcess(environment(path)) as service, service.client() as client:
        item = {"amount": "0.00000001", "timestamp": time.time_ns() // 1_000_000, "user_id": "é" * 128}
        wal = path.with_name("ledger.db-wal")

        def pages_left() -> int:
            return WAL_PAGES_MAX - wal.stat().st_size // FRAME_BYTES

        # Eleven rows fill a page; never more than the half of what is left.
        while (left := pages_left()) > WAL_PAGES_LEFT:
            items = [item] * min(10_000, (left - WAL_PAGES_LEFT // 2) * 6)
            answer = client.post("/transactions/batch", json=items)
            assert answer.json()["accepted"] == len(items)
        assert pages_left() > 0
        service.kill()
    return directory


def environment(path: Path) -> dict[str, str]:
    return {"DATABASE_URL": sqlite_url(path), "WINDOW_SECONDS": str(WINDOW_SECONDS)}


@needs_strace
@pytest.mark.parametrize("point", points(POINTS), ids=lambda point: f"{point.call}-{point.number}")
def test_a_kill_loses_nothing_that_was_acknowledged(
    point: Point, nearly_full: Path, tmp_path: Path
) -> None:
    shutil.copytree(nearly_full, tmp_path / "disk")
    path = tmp_path / "disk" / "ledger.db"
    before = salvaged_rows(path, tmp_path / "salvaged")
    fault = {point.call: f"signal=KILL:when={point.number}"}
    command = strace(tmp_path / "trace", **fault) if point.call else ()
    load: Load | None = None
    with ServiceProcess(environment(path), command) as service:
        url = service.serving_unless_ended()
        if url is not None:
            load = Load(url, connections=16, batch_connections=2)
            was_struck = asyncio.run(post_until_killed(load, service, point))
            assert was_struck or not point.call
    after = salvaged_rows(path, tmp_path / "salvaged")
    acknowledged = {} if load is None else load.acknowledged
    assert {key: after.get(key) for key in before | acknowledged} == before | acknowledged
    new = {key: units for key, units in after.items() if key not in before}
    if load is None:
        assert new == {}
    else:
        load.check(new)
        assert load.unexplained(new) == {}
        assert len(new) - len(acknowledged) <= load.rows_at_once_max
    assert_statistics_equal(path, after)
    # Once more with what the start left of the WAL.
    assert rows_in(path) == after


@needs_strace
@pytest.mark.parametrize("more", [0, *range(1, POINTS // 4 * 40, 40)])
def test_what_a_deletion_has_cleared_never_returns_though_the_service_is_killed_behind_it(
    more: int, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    # So slow that an answer that comes before its commit is heard before it, too.
    command = strace(tmp_path / "trace", pwrite64="delay_enter=2000")
    with ServiceProcess(environment(path), command) as service:
        load = Load(service.serving(), connections=16, batch_connections=2)

        async def delete_and_kill() -> tuple[float, float]:
            async with load.under_way():
                await load.reach(200)
                async with httpx.AsyncClient(base_url=load.url) as client:
                    sent = time.monotonic()
                    answer = await client.delete("/transactions")
                    answered = time.monotonic()
                assert answer.status_code == 204
                # Right behind it, or behind some that came after.
                if more:
                    await load.reach(len(load.acknowledged) + more)
                service.kill()
            return sent, answered

        sent, answered = asyncio.run(delete_and_kill())
    rows = salvaged_rows(path, tmp_path / "salvaged")
    before = {key for key, (_, told) in load.moments.items() if told < sent}
    after = {key for key, (begun, _) in load.moments.items() if begun > answered}
    assert len(before) >= 200
    assert rows.keys().isdisjoint(before)
    assert after <= rows.keys()
    assert load.unexplained(rows) == {}
    assert_statistics_equal(path, rows)


async def post_until_killed(load: Load, service: ServiceProcess, point: Point) -> bool:
    """Whether the service was gone before the load had reached its end."""
    async with asyncio.timeout(WAIT_SECONDS):
        running = asyncio.create_task(load.run())
        reached = asyncio.create_task(
            load.reach(ACKNOWLEDGED_MAX if point.call else max(point.number, 1))
        )
        await asyncio.wait((running, reached), return_when=asyncio.FIRST_COMPLETED)
        was_struck = not reached.done()
        reached.cancel()
        service.kill()
        await running
    return was_struck


def assert_statistics_equal(path: Path, rows: Amounts) -> None:
    """Start on the file as it was left."""
    settings = Settings(database_url=sqlite_url(path), window_seconds=WINDOW_SECONDS)
    with serve(settings, Clock(time.time_ns() // 1_000_000 + 1)) as service:
        assert figures(service.client) == figures_of(rows)
