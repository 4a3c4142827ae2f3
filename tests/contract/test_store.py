"""One suite over every store: what the ledger may rely on."""

import asyncio
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.idempotency import Key, KeyRoute, Record
from app.core.money import UNITS_MAX
from app.core.summary import Summary
from app.store.base import MemoryStore, Store, Tally, identity
from tests.support.stores import DURABLE_STORES, STORES, Opener, row, with_store


@pytest.mark.parametrize("opener", STORES)
def test_a_new_store_holds_nothing(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        assert list((await store.tally(0, 10**15, 1)).found) == []

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_rows_are_summed_up_by_currency_and_millisecond(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        await store.append([row(1, 1000, 5), row(2, 1000, -7), row(3, 1001, 1)])
        await store.append([row(4, 1000, 9, "JPY")])
        assert set((await store.tally(0, 2000, 1)).found) == {
            Tally("EUR", 1000, Summary(2, -2, -7, 5)),
            Tally("EUR", 1001, Summary.of(1)),
            Tally("JPY", 1000, Summary.of(9)),
        }

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_slots_may_be_longer_than_a_millisecond(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        await store.append([row(number, 1000 + number, 5) for number in range(120)])
        tallies = (await store.tally(1010, 2000, 60)).found
        assert sorted((tally.slot_ms, tally.summary.count) for tally in tallies) == [
            (960, 10),
            (1020, 60),
            (1080, 40),
        ]

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_both_ends_of_a_span_are_included(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        await store.append([row(number, number) for number in range(10)])
        tallies = (await store.tally(3, 6, 1)).found
        assert sorted(tally.slot_ms for tally in tallies) == [3, 4, 5, 6]

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_sums_past_64_bits_are_exact(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        await store.append([row(number, 1000, UNITS_MAX) for number in range(7)])
        await store.append([row(number, 1001, -UNITS_MAX) for number in range(7, 14)])
        assert {tally.summary.sum_units for tally in (await store.tally(1000, 1001, 1)).found} == {
            7 * UNITS_MAX,
            -7 * UNITS_MAX,
        }

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_clearing_forgets_what_was_appended_and_keeps_what_comes_after(
    opener: Opener, tmp_path: Path
) -> None:
    async def body(store: Store) -> None:
        await store.append([row(1)])
        await store.clear()
        assert list((await store.tally(0, 2000, 1)).found) == []
        await store.append([row(2, amount_units=3)])
        assert list((await store.tally(0, 2000, 1)).found) == [Tally("EUR", 1000, Summary.of(3))]

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_what_was_kept_before_a_deletion_is_of_an_earlier_epoch(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        epoch = await store.append([row(1)])
        assert await store.tally(0, 2000, 1) == (epoch, [Tally("EUR", 1000, Summary.of(1))])
        later = await store.clear()
        assert later > epoch
        assert (await store.tally(0, 0, 1)).epoch == await store.append([row(2)]) == later
        assert (await store.tally(0, 2000, 1)).epoch == later

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", DURABLE_STORES)
def test_an_epoch_outlives_a_restart(opener: Opener, tmp_path: Path) -> None:
    epochs: list[int] = []

    async def clear(store: Store) -> None:
        epochs.append(await store.clear())

    async def append(store: Store) -> None:
        epochs.append(await store.append([row(1)]))

    for body in (clear, clear, append):
        with_store(opener, tmp_path, body)
    first, second, appended = epochs
    assert first < second == appended


@pytest.mark.parametrize("opener", DURABLE_STORES)
def test_a_store_is_known_again_by_its_identity(opener: Opener, tmp_path: Path) -> None:
    identities: list[bytes] = []

    async def note(store: Store) -> None:
        await store.clear()
        identities.append(identity(await store.secret()))

    for path in (tmp_path, tmp_path, tmp_path / "other"):
        path.mkdir(exist_ok=True)
        with_store(opener, path, note)
    with_store(lambda _: MemoryStore(), tmp_path, note)
    first, again, *others = identities
    assert first == again
    assert len({first, *others}) == 3
    assert {len(each) for each in identities} == {8}


@pytest.mark.parametrize("opener", STORES)
def test_purging_in_steps_ends_and_takes_nothing_that_counts(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        await store.append([row(number) for number in range(25)])
        await store.clear()
        await store.append([row(99, amount_units=3)])
        steps = 0
        while await store.purge(10):
            steps += 1
        assert steps <= 2
        assert list((await store.tally(0, 2000, 1)).found) == [Tally("EUR", 1000, Summary.of(3))]

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_a_probe_changes_nothing(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        await store.append([row(1)])
        await store.probe()
        assert list((await store.tally(0, 2000, 1)).found) == [Tally("EUR", 1000, Summary.of(1))]

    with_store(opener, tmp_path, body)


Facts = st.tuples(
    st.integers(0, 50), st.integers(-UNITS_MAX, UNITS_MAX), st.sampled_from(["EUR", "USD", "JPY"])
)


@pytest.mark.parametrize("opener", STORES)
@given(batches=st.lists(st.lists(Facts, min_size=1, max_size=8), max_size=5), cut=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_a_tally_is_that_of_the_rows_added_up_one_by_one(
    opener: Opener,
    batches: list[list[tuple[int, int, str]]],
    cut: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    numbers = itertools.count()
    expected: dict[tuple[str, int], Summary] = {}
    for timestamp_ms, amount_units, currency in (fact for batch in batches for fact in batch):
        if timestamp_ms >= cut:
            key, one = (currency, timestamp_ms), Summary.of(amount_units)
            expected[key] = expected[key].merge(one) if key in expected else one

    async def body(store: Store) -> None:
        await store.clear()
        for batch in batches:
            await store.append([row(next(numbers), *fact) for fact in batch])
        tallies = (await store.tally(cut, 50, 1)).found
        assert {(t.currency, t.slot_ms): t.summary for t in tallies} == expected

    with_store(opener, tmp_path_factory.getbasetemp(), body)


def test_memory_keeps_the_newest_rows_and_no_more() -> None:
    async def main() -> None:
        store = MemoryStore(rows_max=3)
        await store.append([row(number, number) for number in range(5)])
        assert sorted(tally.slot_ms for tally in (await store.tally(0, 9, 1)).found) == [2, 3, 4]

    asyncio.run(main())


def record(number: int, created_ms: int = 0) -> Record:
    key = Key.of(KeyRoute.TRANSACTION, "alice", b"%d" % number, b"content %d" % number)
    return Record.of(key, b"answer %d" % number * (1 + number % 2 * 500), created_ms)


@pytest.mark.parametrize("opener", STORES)
def test_records_are_found_by_their_digests(opener: Opener, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        records = [record(number) for number in range(100)]
        await store.append([row(1)], records[:60])
        await store.append([], records[60:99])
        wanted = [each.key.digest for each in records[50:]]
        found = await store.find(wanted)
        assert found == {each.key.digest: each for each in records[50:99]}
        assert await store.find([]) == {}
        await store.clear()
        assert await store.find(wanted) == found

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", DURABLE_STORES)
def test_records_are_there_after_a_restart_and_expire_oldest_first(
    opener: Opener, tmp_path: Path
) -> None:
    async def write(store: Store) -> None:
        for number in range(10):
            await store.append([], [record(number, created_ms=number)])

    async def expire(store: Store) -> None:
        digests = [record(number).key.digest for number in range(10)]
        assert len(await store.find(digests)) == 10
        assert await store.expire(7, records_max=5)
        assert set(await store.find(digests)) == set(digests[5:])
        assert not await store.expire(7, records_max=5)
        assert set(await store.find(digests)) == set(digests[7:])
        assert not await store.expire(0, records_max=5)

    for body in (write, expire):
        with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", DURABLE_STORES)
def test_records_of_a_clock_that_was_ahead_do_not_keep_those_behind_them(
    opener: Opener, tmp_path: Path
) -> None:
    async def body(store: Store) -> None:
        ahead = [record(number, created_ms=10**15) for number in range(20)]
        await store.append([], ahead)
        await store.append([], [record(number, created_ms=number) for number in range(20, 32)])
        assert await store.expire(100, records_max=10)
        assert not await store.expire(100, records_max=10)
        assert set(await store.find([record(number).key.digest for number in range(32)])) == {
            each.key.digest for each in ahead
        }

    with_store(opener, tmp_path, body)


def test_memory_bounds_what_it_remembers_by_its_size_too() -> None:
    async def body() -> None:
        store = MemoryStore()
        noise = random.Random(1).randbytes(2**20)
        packed = Record.of(record(0).key, noise, 0).packed
        records = [Record(record(number).key, packed, 0) for number in range(100)]
        for each in records:
            await store.append([], [each])
        found = await store.find([each.key.digest for each in records])
        assert 60 < len(found) < 64
        assert found[records[-1].key.digest].answer == noise

    asyncio.run(body())


def test_memory_remembers_the_newest_records() -> None:
    async def body() -> None:
        store = MemoryStore(records_max=3)
        await store.append([], [record(number) for number in range(5)])
        digests = [record(number).key.digest for number in range(5)]
        assert set(await store.find(digests)) == set(digests[2:])

    asyncio.run(body())


@given(st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), unique=True, max_size=20))
def test_no_two_callers_or_texts_or_routes_share_a_digest(
    named: list[tuple[str, bytes]],
) -> None:
    digests = {
        Key.of(route, subject, text, b"").digest
        for route in KeyRoute
        for subject, text in named
        if "\0" not in subject
    }
    assert len(digests) == len(KeyRoute) * sum("\0" not in subject for subject, _ in named)
