"""Several nodes over one PostgreSQL: who may be there, whose a row is, and what they do at once."""

import asyncio
import itertools
import os
import random
import sys
from collections.abc import Iterator

import psycopg
import pytest

from app.core.identifier import IdentifierSource
from app.core.money import UNITS_MAX
from app.core.question import Place, Portion, Question
from app.core.summary import EMPTY, Figures, Summary
from app.core.transaction import Row, Transaction
from app.store import migrations, postgres, postgres_hold
from app.store.base import SharedStore, StoreFailed, StoreUnusable, Tally, identity
from app.store.postgres import PostgresStore
from tests.support.appending_node import BATCH_ROWS
from tests.support.nodes import (
    ROUNDS,
    SEED,
    WAIT_SECONDS,
    end_connections,
    opened,
    record,
    row,
    someone_else,
    with_nodes,
)
from tests.support.postgres import ask, ids, needs_postgres, new_database_url

pytestmark = needs_postgres

KILL_ROUNDS = int(os.environ.get("MILLRACE_POSTGRES_KILL_ROUNDS", "1"))

Name = str | None


# Who is there, who comes, and why they may not.
OBSTACLES = [
    (None, None, "the database is in use by another process"),
    ("a", None, "the database is in use by nodes: stop them first, or be one of them, with a NODE_ID"),
    ("a", "a", "another process runs as this node: each needs a NODE_ID of its own"),
    (None, "a", "the database is in use by a process that runs alone, and is no node"),
]


@pytest.mark.parametrize(("present", "coming", "complaint"), OBSTACLES)
def test_whoever_must_not_be_there_at_the_same_time_is_told_so(
    present: Name, coming: Name, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database_url()
    monkeypatch.setattr(postgres_hold, "HELD_SECONDS", 0.05)

    async def main() -> None:
        async with opened(url, present) as there:
            with pytest.raises(StoreUnusable) as refused:
                await PostgresStore(url, coming).open()
            assert str(refused.value) == complaint
            # Who was turned away has left nothing in the way, and nobody was disturbed.
            end_connections(url)
            await there.append([row(1)])
        async with opened(url, coming) as there:
            await there.append([row(2)])

    asyncio.run(main())
    assert ids(url) == [1, 2]


# Who has lost the connection, who was there meanwhile, and whether that is any trouble.
MEANWHILE = [
    ("a", "b", False),
    ("a", "a", True),
    ("a", None, True),
    (None, "a", True),
    (None, None, True),
]


@pytest.mark.parametrize(("losing", "visitor", "is_trouble"), MEANWHILE)
def test_a_lost_connection_is_made_again_unless_someone_was_in_its_place(
    losing: Name, visitor: Name, is_trouble: bool
) -> None:
    url = new_database_url()

    async def main() -> None:
        async with opened(url, losing) as store:
            await store.append([row(1)])
            end_connections(url)
            async with opened(url, visitor) as another:
                await another.append([row(2)])
            if is_trouble:
                with pytest.raises(StoreFailed, match="meanwhile"):
                    await store.append([row(3)])
            else:
                await store.append([row(3)])

    asyncio.run(main())
    assert ids(url) == ([1, 2] if is_trouble else [1, 2, 3])


@pytest.mark.parametrize(("losing", "taker", "complaint"), [(c, p, text) for p, c, text in OBSTACLES])
def test_whose_place_is_taken_must_not_go_on(
    losing: Name, taker: Name, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database_url()
    monkeypatch.setattr(postgres_hold, "HELD_SECONDS", 0.05)

    async def main() -> None:
        async with opened(url, losing) as store:
            end_connections(url)
            async with opened(url, taker) as another:
                with pytest.raises(StoreFailed, match=complaint):
                    await store.append([row(1)])
                await another.append([row(2)])

    asyncio.run(main())
    assert ids(url) == [2]


def test_every_row_is_of_the_node_that_kept_it() -> None:
    url = new_database_url()

    async def keep(name: Name, number: int) -> int:
        async with opened(url, name) as store:
            await store.append([row(number)])
            return store._session.hold.number

    async def main() -> None:
        numbers = [
            await keep(name, 1 + place) for place, name in enumerate((None, "a", "b", "a", "ü x"))
        ]
        assert numbers[0] == 0
        assert numbers[1] == numbers[3]
        assert len(set(numbers)) == 4
        async with opened(url, "b") as store:
            expected = {
                "": Summary.of(1),
                "a": Summary(2, 6, 2, 4),
                "b": Summary.of(3),
                "ü x": Summary.of(5),
            }
            everything = (await store.tally(0, 2000, 1)).found
            assert set(everything) == {Tally("EUR", 1000, summed, of) for of, summed in expected.items()}
            for name, summary in expected.items():
                found = (await store.tally(0, 2000, 1, name)).found
                assert list(found) == [Tally("EUR", 1000, summary, name)]
            assert list((await store.tally(0, 2000, 1, "c")).found) == []
            assert list((await store.tally(1001, 2000, 1, "a")).found) == []

        async with opened(url) as store:
            # Whoever is alone had those without a name.
            assert {tally.node for tally in (await store.tally(0, 2000, 1)).found} == {
                None,
                "a",
                "b",
                "ü x",
            }

    asyncio.run(main())


def test_rows_from_before_there_were_nodes_are_those_of_a_process_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = new_database_url(is_migrated=False)
    first, *_ = everything = migrations.load("postgresql")
    monkeypatch.setattr(migrations, "load", lambda _: [first])
    asyncio.run(postgres.migrate(url))
    ask(url, "INSERT INTO transactions VALUES (gen_random_uuid(), 1000, 7, 'EUR')")
    monkeypatch.setattr(migrations, "load", lambda _: everything)
    with psycopg.connect(url) as holder:
        # As a service does.
        holder.execute("SELECT pg_advisory_lock(1297042529, 'ledger'::regclass::oid::int)")
        with pytest.raises(StoreUnusable, match="in use: stop every process"):
            asyncio.run(postgres.migrate(url))
    asyncio.run(postgres.migrate(url))

    async def main() -> None:
        async with opened(url, "a") as store:
            assert list((await store.tally(0, 2000, 1)).found) == [Tally("EUR", 1000, Summary.of(7), "")]

    asyncio.run(main())


def test_what_is_old_is_trimmed_by_all_nodes_and_nothing_else() -> None:
    url = new_database_url()
    identifiers = IdentifierSource(1)
    old = [row(each) for each in identifiers.take(1000, 500)]
    new = [row(each) for each in identifiers.take(5000, 500)]

    async def trim(store: PostgresStore) -> None:
        for _ in range(ROUNDS):
            await store.trim(5000, 9)
            await store.expire(1, 9)
            await store.probe()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        await a.append(old, [record(n) for n in range(500)])
        trims = [asyncio.create_task(trim(each)) for each in (a, b)]
        async with opened(url, "c") as c:
            for each in new:
                await c.append([each])
        await asyncio.gather(*trims)
        assert ids(url) == [each.id for each in new]
        assert ask(url, "SELECT count(*) FROM idempotency") == [(0,)]

    with_nodes(url, body)


def test_who_comes_to_trim_while_another_does_has_nothing_to_do() -> None:
    url = new_database_url()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        await a.append([row(1)], [record(1)])
        async with someone_else(url) as other:
            for table in ("transactions", "idempotency"):
                await other.execute(
                    f"SELECT pg_advisory_xact_lock('{table}'::regclass::oid::int, 0)".encode()
                )
            assert not await b.trim(10**12, 1)
            assert not await b.expire(10**12, 1)
            assert ids(url) == [1]
        assert await b.trim(10**12, 1)
        assert await b.expire(10**12, 1)
        assert ids(url) == []

    with_nodes(url, body)


def test_the_feed_is_one_and_its_pages_skip_and_repeat_nothing_while_all_nodes_write() -> None:
    url = new_database_url()
    print(f"MILLRACE_SEED={SEED}")
    choose = random.Random(SEED)
    sources = [IdentifierSource(choose.getrandbits(48)) for _ in range(2)]

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        stores = a, b
        there: list[Row] = []

        async def post(number: int, timestamp_ms: int) -> None:
            side = number % 2
            fact = Transaction(number + 1, timestamp_ms, "EUR", "u-1")
            there.append(Row(sources[side].next(1000 + number), fact))
            await stores[side].append(there[-1:])

        for number in range(60):
            await post(number, choose.randint(1000, 1009))
        before = sorted(there, key=lambda row: (row.transaction.timestamp_ms, row.id), reverse=True)
        assert (await a.get(there[1].id), await b.get(there[0].id)) == (there[1], there[0])
        found: list[Row] = []
        place: Place | None = None
        for number in itertools.count(60):
            page = await stores[number % 2].page(Question(user_id="u-1"), Portion(7, before=place))
            found += page.rows
            if not page.has_more:
                break
            place = Place(found[-1].transaction.timestamp_ms, found[-1].id)
            await post(number, choose.randint(1010, 1020))
        assert found == before
        # All at one time: then their order is that of their ids, whoever has kept them.
        for number in range(200, 220):
            await post(number, 5000)
        newest = (await a.page(Question(user_id="u-1"), Portion(20))).rows
        assert [row.transaction.amount_units for row in newest] == list(range(220, 200, -1))

    with_nodes(url, body)


def test_nodes_share_one_secret_and_one_identity() -> None:
    url, elsewhere = new_database_url(), new_database_url()

    async def body(a: PostgresStore, b: PostgresStore) -> None:
        first, second = await asyncio.gather(a.secret(), b.secret())
        assert first == second
        assert identity(first) == identity(second)
        async with opened(elsewhere, "a") as other:
            assert identity(await other.secret()) != identity(first)

    with_nodes(url, body)


def test_figures_of_a_user_are_those_of_a_list_of_what_all_nodes_have_kept() -> None:
    url = new_database_url()
    print(f"MILLRACE_SEED={SEED}")
    choose = random.Random(SEED)
    users, currencies = [None, "u-1", "u-2"], ["EUR", "JPY", "USD"]
    facts = [
        Transaction(
            choose.randint(-UNITS_MAX, UNITS_MAX),
            choose.randint(1000, 1050),
            choose.choice(currencies),
            choose.choice(users),
        )
        for _ in range(300)
    ]
    facts += [Transaction(UNITS_MAX, 1050, "EUR", "u-3")] * 5

    def expected(user_id: str, from_ms: int, currency: str | None) -> Figures:
        summaries = dict.fromkeys(currencies if currency is None else [currency], EMPTY)
        for fact in facts:
            if fact.user_id == user_id and fact.timestamp_ms >= from_ms and fact.currency in summaries:
                summaries[fact.currency] = summaries[fact.currency].merge(Summary.of(fact.amount_units))
        return Figures.joining(sorted(summaries.items()))

    async def body(a: PostgresStore, b: SharedStore) -> None:
        for number, fact in enumerate(facts):
            await (a, b)[number % 2].append([Row(number, fact)])
        for user_id in ("u-1", "u-2", "u-3", "u-4"):
            for from_ms in (0, 1025, 1050, 1051):
                for currency in (None, *currencies, "CHF"):
                    figures = await b.user_figures(user_id, from_ms, currency)
                    assert figures == expected(user_id, from_ms, currency)
                    assert list(figures.by_currency) == sorted(figures.by_currency)

    with_nodes(url, body)


def test_a_kill_of_a_node_loses_nothing_and_does_not_disturb_the_others() -> None:
    url = new_database_url()
    command = sys.executable, "-m", "tests.support.appending_node", url, "b"

    async def kept_around_a_kill(a: PostgresStore, numbers: Iterator[int], after: int) -> set[int]:
        """Append as a node, beside another that is killed when it has said so many ids."""
        killed = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert killed.stdout is not None
        told: list[int] = []
        appended: list[int] = []

        async def listen(output: asyncio.StreamReader) -> None:
            async for line in output:
                told.append(int(line))
                if len(told) == after:
                    killed.kill()

        listening = asyncio.create_task(listen(killed.stdout))
        while not listening.done():
            appended.append(next(numbers))
            assert await a.append([row(appended[-1])]) == 0
        await listening
        await killed.wait()
        return {*told, *appended}

    async def main() -> None:
        numbers = itertools.count(1)
        expected: set[int] = set()
        async with asyncio.timeout(WAIT_SECONDS * KILL_ROUNDS), opened(url, "a") as a:
            for after in range(500, 500 + KILL_ROUNDS):
                expected |= await kept_around_a_kill(a, numbers, after)
                # Nothing keeps its next start out, and that one finds what there is.
                async with opened(url, "b") as b:
                    found = set(ids(url))
                    assert expected <= found
                    # One batch was kept, perhaps, of which nobody was told.
                    assert len(found) - len(expected) in (0, BATCH_ROWS)
                    tallies = {tally.node: tally.summary for tally in (await b.tally(0, 2000, 1)).found}
                    assert tallies["b"].count == sum(each > 2**64 for each in found)
                    expected = found

    asyncio.run(main())
