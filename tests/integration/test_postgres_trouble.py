"""PostgreSQL that is full, slow, locked or hangs, or does not sync: what is refused, and what passes."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg import AsyncConnection

from app.core.question import Portion, Question
from app.store import postgres_connection, postgres_readers, postgres_session
from app.store.base import StoreFailed, StoreRefused, StoreUnusable
from app.store.postgres import PostgresStore
from tests.support.postgres import (
    ask,
    ids,
    needs_postgres,
    needs_postgres_of_ours,
    new_database_url,
    server_of_ours,
)
from tests.support.stores import row, with_postgres

pytestmark = needs_postgres


@contextmanager
def failing_inserts(url: str, sqlstate: str) -> Iterator[None]:
    """Meanwhile every insert fails, as the server would where it cannot go on."""
    ask(
        url,
        "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$;"
        "CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON transactions EXECUTE FUNCTION fail()",
    )
    yield
    ask(url, "DROP TRIGGER fail ON transactions")


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "57014", "40P01", "25006"])
def test_want_of_room_or_time_is_refused_and_passes(sqlstate: str) -> None:
    url = new_database_url()

    async def body(store: PostgresStore) -> None:
        with failing_inserts(url, sqlstate), pytest.raises(StoreRefused):
            await store.append([row(1)])
        await store.append([row(2)])
        assert ids(url) == [2]

    with_postgres(url, body)


@pytest.mark.parametrize("sqlstate", ["XX000", "58030", "P0001"])
def test_what_nobody_foresaw_is_a_failure(sqlstate: str) -> None:
    url = new_database_url()

    async def body(store: PostgresStore) -> None:
        with failing_inserts(url, sqlstate), pytest.raises(StoreFailed):
            await store.append([row(1)])
        with pytest.raises(StoreFailed):
            await store.append([row(2)])

    with_postgres(url, body)


def test_a_deletion_and_a_reader_do_not_wait_long_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = new_database_url()
    monkeypatch.setattr(postgres_session, "_LOCK_MS", 50)
    monkeypatch.setattr(postgres_readers, "STATEMENT_MS", 50)

    async def body(store: PostgresStore) -> None:
        await store.append([row(1)])
        async with await AsyncConnection.connect(url) as another:
            await another.execute("SELECT FROM transactions")
            with pytest.raises(StoreRefused):
                await store.clear()
            await another.execute("LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreRefused):
                await store.page(Question(), Portion(1))
            with pytest.raises(StoreRefused):
                await store.append([row(2)])
        assert len((await store.page(Question(), Portion(9))).rows) == 1
        await store.clear()
        await store.append([row(3)])
        assert ids(url) == [3]

    with_postgres(url, body)


def test_more_readers_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_database_url()
    monkeypatch.setattr(postgres_readers, "CONNECTIONS_MAX", 1)
    monkeypatch.setattr(postgres_readers, "WAITING_MAX", 3)

    async def body(store: PostgresStore) -> None:
        await store.append([row(1)])
        async with await AsyncConnection.connect(url) as another:
            await another.execute("LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE")
            reads = [asyncio.create_task(store.get(1)) for _ in range(5)]
            await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        found = await asyncio.gather(*reads, return_exceptions=True)
        # The last one, that would have been the fourth to wait for the first.
        assert found[:4] == [row(1)] * 4
        assert isinstance(found[4], StoreRefused)
        assert await store.get(1) == row(1)

    with_postgres(url, body)


@needs_postgres_of_ours
def test_a_server_that_hangs_refuses_and_is_found_well_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_of_ours()
    url = new_database_url()
    monkeypatch.setattr(postgres_session, "ANSWER_SECONDS", 0.2)

    async def body(store: PostgresStore) -> None:
        await store.append([row(1)])
        server.freeze()
        try:
            for number in (2, 3):
                with pytest.raises(StoreRefused):
                    await store.append([row(number)])
        finally:
            server.thaw()
        monkeypatch.setattr(postgres_session, "ANSWER_SECONDS", 10.0)
        await store.append([row(4)])
        assert ids(url) == [1, 4]

    with_postgres(url, body)


@needs_postgres_of_ours
def test_no_question_waits_longer_for_a_server_that_hangs_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = server_of_ours()
    url = new_database_url()
    monkeypatch.setattr(postgres_session, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(postgres_readers, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(postgres_connection, "_CANCEL_SECONDS", 0.1)

    async def body(store: PostgresStore) -> None:
        await store.get(1)
        server.freeze()
        try:
            # psycopg alone would wait for ten seconds more.
            async with asyncio.timeout(3):
                for asking in (store.get(1), store.find([b"x" * 16]), store.probe()):
                    with pytest.raises(StoreRefused):
                        await asking
        finally:
            server.thaw()
        monkeypatch.setattr(postgres_session, "ANSWER_SECONDS", 10.0)
        monkeypatch.setattr(postgres_readers, "ANSWER_SECONDS", 5.0)
        assert await store.get(1) is None
        await store.append([row(1)])
        assert ids(url) == [1]

    with_postgres(url, body)


@needs_postgres_of_ours
def test_a_server_that_does_not_sync_is_not_used() -> None:
    url = new_database_url()
    ask(url, "ALTER SYSTEM SET fsync = off")
    ask(url, "SELECT pg_reload_conf()")
    try:
        with pytest.raises(StoreUnusable, match="fsync is off"):
            asyncio.run(PostgresStore(url).open())
    finally:
        ask(url, "ALTER SYSTEM RESET fsync")
        ask(url, "SELECT pg_reload_conf()")


def test_a_session_syncs_where_the_database_says_otherwise() -> None:
    url = new_database_url()
    (name,) = ask(url, "SELECT current_database()")[0]
    ask(url, f"ALTER DATABASE {name} SET synchronous_commit = off")

    async def body(store: PostgresStore) -> None:
        async with store._session.connected() as connection:
            cursor = await connection.execute("SHOW synchronous_commit")
            assert await cursor.fetchone() == ("on",)

    with_postgres(url, body)
