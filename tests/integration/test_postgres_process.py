"""The process on PostgreSQL: either of the two is killed or hangs under load, and nothing is lost."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.__main__ import main
from app.store import postgres
from app.store.base import StoreUnusable
from app.store.postgres import PostgresStore
from tests.support.ledger_file import Amounts, figures, figures_of, sqlite_url
from tests.support.load import Load
from tests.support.postgres import (
    PostgresServer,
    ask,
    make_database,
    needs_postgres,
    needs_postgres_of_ours,
    new_database_url,
    rows_in_database,
    server_of_ours,
)
from tests.support.process import WAIT_SECONDS, ServiceProcess

pytestmark = needs_postgres

KILL_ROUNDS = int(os.environ.get("MILLRACE_POSTGRES_KILL_ROUNDS", "1"))
CONNECTIONS = 32


def environment(url: str) -> dict[str, str]:
    return {"DATABASE_URL": url, "WINDOW_SECONDS": "3600"}


def under_load(load: Load, body: Callable[[Load], Awaitable[None]], service: ServiceProcess) -> None:
    """Run a body while clients post, then have the service end in order."""

    async def post() -> None:
        async with load.under_way():
            await body(load)
            service.terminate()

    asyncio.run(post())
    assert service.exit_status() == 0


def test_kills_of_the_service_lose_nothing_that_was_acknowledged() -> None:
    url = new_database_url()
    acknowledged: Amounts = {}
    for round_number in range(KILL_ROUNDS):
        with ServiceProcess(environment(url)) as service:
            load = Load(service.serving(), connections=CONNECTIONS, batch_connections=2)
            load.run_until(200 + 97 * round_number, service.kill)
        acknowledged |= load.acknowledged
        rows = rows_in_database(url)
        assert {key: rows.get(key) for key in acknowledged} == acknowledged
        assert len(rows) - len(acknowledged) <= load.rows_at_once_max * (round_number + 1)
    # What the killed one left behind does not keep the next one out.
    with ServiceProcess(environment(url)) as service, service.client() as client:
        assert figures(client) == figures_of(rows_in_database(url))


@needs_postgres_of_ours
def test_kills_of_the_server_lose_nothing_and_need_no_hand() -> None:
    # One of its own: a start after a kill syncs every file of every database.
    server = PostgresServer()
    url = make_database(server.url)
    with ServiceProcess(environment(url)) as service:
        load = Load(service.serving(), connections=CONNECTIONS, refusal_pause_seconds=0.02)

        async def kill_and_start(load: Load) -> None:
            for _ in range(KILL_ROUNDS):
                await load.reach(len(load.acknowledged) + 200)
                server.kill()
                await asyncio.sleep(0)
                await asyncio.to_thread(server.start)
                await load.reach(len(load.acknowledged) + 200)

        under_load(load, kill_and_start, service)
    rows = rows_in_database(url)
    load.check(rows)
    assert load.unexplained(rows) == {}
    assert load.codes.keys() <= {"store_refused", "overloaded"}
    server.remove()


@needs_postgres_of_ours
def test_a_server_that_hangs_has_posts_refused_until_it_goes_on() -> None:
    server, url = server_of_ours(), new_database_url()
    with ServiceProcess(environment(url)) as service:
        load = Load(service.serving(), connections=CONNECTIONS, refusal_pause_seconds=0.02)

        async def freeze_and_thaw(load: Load) -> None:
            await load.reach(200)
            server.freeze()
            try:
                # On a connection that did not wait for the server when it froze.
                async with httpx.AsyncClient(base_url=load.url, timeout=WAIT_SECONDS) as client:
                    while (await client.get("/readyz")).status_code == 200:
                        await asyncio.sleep(0.01)
                    began = time.monotonic()
                    answer = await client.post(
                        "/transactions", json={"amount": 1, "timestamp": time.time()}
                    )
                    assert answer.status_code == 503
                    assert time.monotonic() - began < 1
                    assert (await client.get("/stats")).status_code == 200
            finally:
                server.thaw()
            await load.reach(len(load.acknowledged) + 200)

        under_load(load, freeze_and_thaw, service)
    rows = rows_in_database(url)
    load.check(rows)
    assert load.unexplained(rows) == {}


@pytest.fixture
def migrate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Runs `python -m app migrate` on a URL: its exit status, and what it wrote."""

    def run(url: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["app", "migrate"])
        monkeypatch.setenv("DATABASE_URL", url)
        status = main()
        return status, *capsys.readouterr()

    return run


def test_a_database_is_made_ready_by_a_command_and_not_by_a_start(
    migrate: Callable[[str], tuple[int, str, str]],
) -> None:
    url = new_database_url(is_migrated=False)
    with ServiceProcess(environment(url)) as service:
        assert service.exit_status() == 1
        assert service.complaint() == (
            "millrace: the database has no 0001_ledger.sql yet: run `python -m app migrate` first\n"
        )
    assert migrate(url) == (0, "applied 0001_ledger.sql\napplied 0002_nodes.sql\n", "")
    assert migrate(url) == (0, "up to date\n", "")
    ask(url, "INSERT INTO migrations VALUES (999, '0999_later.sql', '')")
    status, _, complaint = migrate(url)
    assert status == 1
    assert complaint.endswith("the database is at schema version 999, newer than this program\n")
    with pytest.raises(StoreUnusable, match="newer than this program"):
        asyncio.run(PostgresStore(url).open())


def test_of_two_that_migrate_at_once_one_does_it() -> None:
    url = new_database_url(is_migrated=False)

    async def migrate_twice() -> tuple[list[str], list[str]]:
        return await asyncio.gather(postgres.migrate(url), postgres.migrate(url))

    assert sorted(asyncio.run(migrate_twice())) == [[], ["0001_ledger.sql", "0002_nodes.sql"]]


def test_a_file_is_migrated_by_the_command_too(
    tmp_path: Path, migrate: Callable[[str], tuple[int, str, str]]
) -> None:
    url = sqlite_url(tmp_path / "ledger.db")
    status, told, _ = migrate(url)
    assert status == 0
    assert told.startswith("applied 0001_ledger.sql\n")
    assert migrate(url) == (0, "up to date\n", "")
    assert migrate("memory://") == (2, "", "millrace: DATABASE_URL: memory:// has no schema\n")


@pytest.mark.parametrize("place", ["db.invalid", "127.0.0.1:1", "127.0.0.1:port", "%"])
def test_a_server_that_is_not_there_is_said_in_a_line_without_a_password(
    place: str, migrate: Callable[[str], tuple[int, str, str]]
) -> None:
    status, told, complaint = migrate(f"postgresql://millrace:hunter2@{place}/millrace")
    assert (status, told) == (1, "")
    assert complaint.startswith("millrace: ")
    assert complaint.count("\n") == 1
    assert "hunter2" not in complaint


def test_a_password_is_not_in_the_log() -> None:
    url = new_database_url()
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    secret = parts._replace(netloc=f"{parts.username}:hunter2@{place}").geturl()
    with ServiceProcess(environment(secret)) as service:
        service.serving()
        assert service.events[0]["database"] == url
        service.terminate()
        assert service.exit_status() == 0
        assert "hunter2" not in str(service.events) + service.complaint()
