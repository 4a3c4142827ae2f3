"""PostgreSQL as a store, where connections are lost and others write: what was kept is known."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.core.activity import Details
from app.core.idempotency import Key, KeyRoute, Record
from app.core.transaction import Row, Transaction
from app.store import postgres_hold
from app.store.base import KeysTaken, StoreFailed, StoreRefused, StoreUnusable
from app.store.postgres import PostgresStore
from app.store.postgres_session import Doubt, Session, Trace
from tests.support.fault_proxy import COPY_DONE, Fault, FaultProxy, fault_proxy
from tests.support.postgres import ask, ids, needs_postgres, new_database_url
from tests.support.stores import opened, row, with_postgres

pytestmark = needs_postgres

COMMIT = b"COMMIT\0"


def record(number: int) -> Record:
    return Record.of(Key.of(KeyRoute.TRANSACTION, None, b"%d" % number, b""), b"answer", 0)


def with_proxy(url: str, body: Callable[[PostgresStore, FaultProxy], Awaitable[None]]) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(30),
            fault_proxy(url) as proxy,
            opened(PostgresStore(proxy.url)) as store,
        ):
            await body(store, proxy)

    asyncio.run(main())


def end_connections(url: str) -> None:
    """As a restart of the server does."""
    ask(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@pytest.mark.parametrize(
    ("rows", "records"), [([row(1), row(2)], []), ([row(1)], [record(1)]), ([], [record(1)])]
)
@pytest.mark.parametrize("fault", [Fault.DROP, Fault.DROP_ANSWER])
def test_a_connection_lost_at_the_commit_leaves_no_doubt(
    fault: Fault, rows: list[Row], records: list[Record]
) -> None:
    url = new_database_url()

    async def body(store: PostgresStore, proxy: FaultProxy) -> None:
        proxy.arm(fault, COPY_DONE, bool(rows) + bool(records))
        if fault is Fault.DROP:
            with pytest.raises(StoreRefused):
                await store.append(rows, records)
        else:
            await store.append(rows, records)
        assert proxy.struck == 1
        is_kept = fault is Fault.DROP_ANSWER
        assert ids(url) == ([row.id for row in rows] if is_kept else [])
        assert len(await store.find([each.key.digest for each in records])) == len(records) * is_kept
        # What was refused can be kept now: nothing of it is still under way.
        if not is_kept:
            await store.append(rows, records)
        await store.append([row(9)])
        assert ids(url) == [*(row.id for row in rows), 9]

    with_proxy(url, body)


def test_what_is_under_way_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_database_url()

    async def leave_alone(session: Session, connection: object) -> None:
        """As a server that does not let one end its processes, or takes its time."""

    asked: list[bool | None] = []
    ask_once = Session._ask

    async def ask_and_note(session: Session, doubt: Doubt, trace: Trace) -> bool | None:
        asked.append(None)
        asked[-1] = await ask_once(session, doubt, trace)
        return asked[-1]

    async def body(store: PostgresStore, proxy: FaultProxy) -> None:
        monkeypatch.setattr(Session, "_end_backend", leave_alone)
        monkeypatch.setattr(Session, "_ask", ask_and_note)
        proxy.arm(Fault.DELAY)
        appending = asyncio.create_task(store.append([row(1)]))
        while len(asked) < 2 and not appending.done():
            await asyncio.sleep(0)
        assert asked == [None, None]
        proxy.delivered.set()
        await appending
        assert ids(url) == [1]

    with_proxy(url, body)


def test_keys_of_records_are_looked_at_before_anything_is_in_doubt() -> None:
    url = new_database_url()

    async def body(store: PostgresStore, proxy: FaultProxy) -> None:
        proxy.arm(Fault.DROP_ANSWER)
        with pytest.raises(StoreRefused):
            await store.append([row(1)], [record(1)])
        assert proxy.struck == 1
        assert ids(url) == []
        await store.append([row(1)], [record(1)])

    with_proxy(url, body)


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.DROP_ANSWER])
def test_a_connection_lost_at_the_commit_of_a_deletion_leaves_no_doubt(fault: Fault) -> None:
    url = new_database_url()

    async def body(store: PostgresStore, proxy: FaultProxy) -> None:
        await store.append([row(1)])
        proxy.arm(fault, COMMIT)
        if fault is Fault.DROP:
            with pytest.raises(StoreRefused):
                await store.clear()
        else:
            await store.clear()
        assert proxy.struck == 1
        assert ids(url) == ([1] if fault is Fault.DROP else [])
        await store.append([row(2)])
        await store.clear()
        assert ids(url) == []

    with_proxy(url, body)


def test_connections_that_were_lost_while_nobody_used_them_cost_nothing() -> None:
    url = new_database_url()

    async def body(store: PostgresStore) -> None:
        await store.append([row(1)])
        end_connections(url)
        await store.append([row(2)])
        assert await store.get(1) == row(1)
        end_connections(url)
        assert await store.get(2) == row(2)
        end_connections(url)
        assert len((await store.tally(0, 2000, 1)).found) == 1
        assert ids(url) == [1, 2]

    with_postgres(url, body)


def test_more_than_a_socket_takes_at_once_is_committed_whole() -> None:
    url = new_database_url()
    details = Details(metadata=b'{"note":"%b"}' % (b"x" * 3000))
    rows = [Row(n, Transaction(n, 1000, "EUR", None, details)) for n in range(1, 3001)]

    async def body(store: PostgresStore) -> None:
        await store.append(rows, [record(n) for n in range(1500)])
        assert ids(url) == [row.id for row in rows]
        assert await store.get(3000) == rows[-1]

    with_postgres(url, body)


def test_a_key_that_another_has_taken_keeps_everything_out() -> None:
    url = new_database_url()

    async def body(store: PostgresStore) -> None:
        await store.append([row(1)], [record(1)])
        with pytest.raises(KeysTaken):
            await store.append([row(2)], [record(2), record(1)])
        assert ids(url) == [1]
        assert len(await store.find([record(1).key.digest, record(2).key.digest])) == 1
        await store.append([row(2)], [record(2)])

    with_postgres(url, body)


def test_one_database_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_database_url()
    monkeypatch.setattr(postgres_hold, "HELD_SECONDS", 0.1)

    async def body(store: PostgresStore) -> None:
        with pytest.raises(StoreUnusable, match="in use by another process"):
            await PostgresStore(url).open()
        await store.append([row(1)])
        # It loses its connection, and another one comes and goes before it notices.
        end_connections(url)
        another = PostgresStore(url)
        await another.open()
        with pytest.raises(StoreFailed, match="in use by another process"):
            await store.append([row(2)])
        await another.append([row(3)])
        await another.close()
        assert ids(url) == [1, 3]

    with_postgres(url, body)


def test_a_process_that_was_not_alone_must_not_go_on() -> None:
    url = new_database_url()

    async def body(store: PostgresStore) -> None:
        end_connections(url)
        another = PostgresStore(url)
        await another.open()
        await another.append([row(1)])
        await another.close()
        with pytest.raises(StoreFailed, match="meanwhile"):
            await store.append([row(2)])
        with pytest.raises(StoreFailed, match="before"):
            await store.probe()
        assert ids(url) == [1]

    with_postgres(url, body)
