"""Several nodes over one PostgreSQL: keys that they take, and deletions, while the others write."""

import asyncio
import itertools
import random
from collections.abc import Sequence

import pytest

from app.core.idempotency import Record
from app.core.transaction import Row
from app.store import postgres_session
from app.store.base import KeysTaken, StoreRefused
from app.store.postgres import PostgresStore, _trace
from app.store.postgres_session import Doubt, Session, Trace
from tests.support.fault_proxy import COPY_DONE, Fault, fault_proxy
from tests.support.nodes import (
    ROUNDS,
    SEED,
    WAIT_SECONDS,
    opened,
    record,
    row,
    someone_else,
    until_waiting,
    with_nodes,
)
from tests.support.postgres import ids, needs_postgres, new_database_url

pytestmark = needs_postgres


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_key_that_another_node_is_about_to_take_is_waited_for(is_committed: bool) -> None:
    url = new_database_url()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        async with someone_else(url) as other:
            key = record(1).key
            await other.execute(
                "INSERT INTO idempotency VALUES (%s, %s, '', 0)", (key.digest, key.fingerprint)
            )
            appending = asyncio.create_task(a.append([row(1)], [record(1)]))
            await until_waiting(url)
            await b.append([row(2)], [record(2)])
            await (other.commit() if is_committed else other.rollback())
        if is_committed:
            with pytest.raises(KeysTaken):
                await appending
        else:
            await appending
        assert ids(url) == ([2] if is_committed else [1, 2])

    with_nodes(url, body)


def test_of_nodes_that_take_keys_at_the_same_time_each_key_has_one() -> None:
    url = new_database_url()
    print(f"MILLRACE_SEED={SEED}")
    choose = random.Random(SEED)

    async def keep(store: PostgresStore, number: int, keys: Sequence[int]) -> bool:
        try:
            await store.append([row(number)], [record(key) for key in keys])
        except KeysTaken:
            return False
        return True

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        kept: list[int] = []
        for first in range(0, 4 * ROUNDS, 4):
            keys = [first, first + 1, first + 2]
            sides = [(a, first, keys[:2]), (b, first + 1, keys[choose.randint(0, 1) :][::-1])]
            choose.shuffle(sides)
            outcomes = await asyncio.gather(*(keep(*side) for side in sides))
            # They share a key at least.
            assert sum(outcomes) == 1
            kept += [side[1] for side, is_kept in zip(sides, outcomes, strict=True) if is_kept]
        assert ids(url) == sorted(kept)

    with_nodes(url, body)


def test_a_deletion_is_one_for_all_nodes() -> None:
    url = new_database_url()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        epoch = await a.append([row(1)])
        assert await b.append([row(2)]) == (await b.tally(0, 0, 1)).epoch == epoch
        assert await b.clear() == epoch + 1
        assert (await a.tally(0, 2000, 1)) == (epoch + 1, [])
        assert await a.append([row(3)], [record(3)]) == (await a.tally(0, 0, 1)).epoch == epoch + 1
        assert await a.append([], [record(4)]) == epoch + 1
        assert await a.clear() == epoch + 2
        assert await b.append([row(5)]) == epoch + 2
        assert (await a.tally(0, 2000, 1, "b")).epoch == epoch + 2
        assert ids(url) == [5]

    with_nodes(url, body)


def test_what_is_appended_while_others_delete_is_there_exactly_if_it_is_of_the_last_epoch() -> None:
    url = new_database_url()
    print(f"MILLRACE_SEED={SEED}")
    numbers = itertools.count(1)
    epochs: dict[str, dict[int, int]] = {"a": {}, "b": {}}
    """By node: the epoch of each row that was acknowledged."""

    async def work(store: PostgresStore, name: str, choose: random.Random) -> None:
        known = 0
        for number in range(ROUNDS):
            if number % 8 == 7:
                epoch = await store.clear()
                assert epoch > known
            else:
                rows = [row(next(numbers)) for _ in range(choose.randint(1, 5))]
                keys = [record(rows[0].id)] if choose.random() < 0.3 else []
                epoch = await store.append(rows, keys)
                epochs[name].update((each.id, epoch) for each in rows)
                assert epoch >= known
            known = epoch

    async def watch(store: PostgresStore, name: str) -> None:
        """What is tallied has all that was acknowledged of its epoch, and nothing of another."""
        while True:
            before = list(epochs[name].values())
            epoch, found = await store.tally(0, 2000, 1, name)
            counted = sum(tally.summary.count for tally in found)
            assert epoch >= max(before, default=0)
            assert before.count(epoch) <= counted
            # Of one append it is not known yet.
            assert counted <= list(epochs[name].values()).count(epoch) + 5

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        watching = [asyncio.create_task(watch(*pair)) for pair in ((b, "a"), (a, "b"))]
        await asyncio.gather(work(a, "a", random.Random(SEED)), work(b, "b", random.Random(SEED + 1)))
        for task in watching:
            task.cancel()
        for result in await asyncio.gather(*watching, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)
        last = (await a.tally(0, 0, 1)).epoch
        assert last == 2 * (ROUNDS // 8)
        all_epochs = epochs["a"] | epochs["b"]
        assert ids(url) == sorted(number for number, epoch in all_epochs.items() if epoch == last)

    with_nodes(url, body)


def test_what_waits_for_a_deletion_is_of_the_epoch_after_it() -> None:
    url = new_database_url()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        epoch = await a.append([row(1)])
        async with someone_else(url) as other:
            await other.execute("UPDATE ledger SET clearings = clearings + 1")
            await other.execute("TRUNCATE transactions")
            appending = asyncio.create_task(a.append([row(2)]))
            tallying = asyncio.create_task(b.tally(0, 2000, 1))
            await until_waiting(url, 2)
            await other.commit()
        assert await appending == (await tallying).epoch == epoch + 1
        assert ids(url) == [2]

    with_nodes(url, body)


def test_deletions_at_once_are_one_after_the_other() -> None:
    url = new_database_url()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        for epoch in range(1, 20, 2):
            assert set(await asyncio.gather(a.clear(), b.clear())) == {epoch, epoch + 1}

    with_nodes(url, body)


def test_a_node_that_hangs_in_a_commit_keeps_nobody_waiting_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = new_database_url()
    monkeypatch.setattr(postgres_session, "_LOCK_MS", 50)

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        async with someone_else(url) as hanging:
            await hanging.execute("LOCK TABLE transactions IN ROW EXCLUSIVE MODE")
            with pytest.raises(StoreRefused):
                await a.clear()
            assert await b.append([row(1)]) == await a.append([row(2)]) == 0
        assert await a.clear() == 1
        assert await b.append([row(3)]) == 1
        assert ids(url) == [3]

    with_nodes(url, body)


@pytest.mark.parametrize(
    ("rows", "records"), [([row(1), row(2)], []), ([row(1)], [record(1)]), ([], [record(1)])]
)
@pytest.mark.parametrize("fault", [Fault.DROP, Fault.DROP_ANSWER])
def test_a_deletion_by_another_leaves_no_doubt_of_a_commit_before_it(
    fault: Fault, rows: list[Row], records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database_url()
    ask_once = Session._ask

    async def main() -> None:
        async with (
            asyncio.timeout(WAIT_SECONDS),
            fault_proxy(url) as proxy,
            opened(proxy.url, "a") as a,
            opened(url, "b") as b,
        ):

            async def clear_and_ask(session: Session, doubt: Doubt, trace: Trace) -> bool | None:
                async with b._session.connected() as connection:
                    # As it does itself, in what is asked then; the deletion would wait for it.
                    await session._end_backend(connection)
                await b.clear()
                return await ask_once(session, doubt, trace)

            monkeypatch.setattr(Session, "_ask", clear_and_ask)
            epoch = await b.clear()
            proxy.arm(fault, COPY_DONE, bool(rows) + bool(records))
            if fault is Fault.DROP:
                with pytest.raises(StoreRefused):
                    await a.append(rows, records)
            else:
                # Not of the one that has begun since: it was deleted.
                assert await a.append(rows, records) == epoch
            assert proxy.struck == 1
            assert ids(url) == []
            is_kept = fault is Fault.DROP_ANSWER
            assert len(await b.find([each.key.digest for each in records])) == len(records) * is_kept
            assert await a.append([row(9)]) == (await b.tally(0, 0, 1)).epoch > epoch

    asyncio.run(main())


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_commit_that_the_server_has_forgotten_is_known_by_what_it_left(
    epoch: int,
) -> None:
    url = new_database_url()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        for _ in range(epoch):
            await b.clear()
        await a.append([row(1)])
        unknown = Doubt(10**15, 0)
        for number in (1, 2):
            trace = _trace([row(number)], [], 0)
            assert await a._session.outcome(unknown, trace) == (number == 1)

    with_nodes(url, body)
