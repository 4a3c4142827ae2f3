"""The feed's index beside a SQLite ledger: that it is derived, and what happens when it is not there."""

import asyncio
import contextlib
import json
import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from app.core.activity import Details, Status
from app.core.question import Page, Portion, Question, place
from app.core.transaction import Row, Transaction
from app.store import sqlite_columns, sqlite_feed
from app.store.base import StoreRefused
from app.store.sqlite import SQLiteStore
from app.store.sqlite_feed import Feed
from app.store.sqlite_index import Index, Tip
from tests.support.stores import with_sqlite
from tests.support.thread import WAIT_SECONDS

NOW_MS = 1_767_323_045_678
ALL = Question()
FIRST = Portion(100)


def row(number: int, timestamp_ms: int = NOW_MS, metadata: bytes | None = None) -> Row:
    details = None if metadata is None else Details(status=Status.PENDING, metadata=metadata)
    transaction = Transaction(number, timestamp_ms, "EUR", f"u-{number % 3}", details)
    return Row((NOW_MS << 80) + number, transaction)


def numbers(page: Page) -> list[int]:
    return [each.transaction.amount_units for each in page.rows]


def index_path(path: Path) -> Path:
    return path.with_name(path.name + "-feed")


def append_and_read(path: Path, rows: list[Row], expected: list[int]) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.append(rows)
        assert numbers(await store.page(ALL, FIRST)) == expected

    with_sqlite(path, body)


def test_an_index_that_was_deleted_or_damaged_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    append_and_read(path, [row(1), row(2)], [2, 1])
    index_path(path).unlink()
    append_and_read(path, [row(3)], [3, 2, 1])
    index_path(path).write_bytes(b"no database " * 1000)
    append_and_read(path, [row(4)], [4, 3, 2, 1])
    content = bytearray(index_path(path).read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    index_path(path).write_bytes(content)

    async def body(store: SQLiteStore) -> None:
        # Found when it is read: that question is refused, the next one is answered.
        try:
            page = await store.page(ALL, FIRST)
        except StoreRefused:
            page = await store.page(ALL, FIRST)
        assert numbers(page) == [4, 3, 2, 1]

    with_sqlite(path, body)


def test_an_index_of_another_ledger_is_made_anew(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    append_and_read(path, [row(1), row(2), row(3)], [3, 2, 1])
    append_and_read(other, [row(4), row(5), row(6)], [6, 5, 4])
    path.unlink()
    other.rename(path)
    append_and_read(path, [row(7)], [7, 6, 5, 4])


def test_an_index_of_a_ledger_with_nothing_left_is_not_that_of_another(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"

    async def trim_all(store: SQLiteStore) -> None:
        await store.append([row(1), row(2), row(3)])
        await store.trim(NOW_MS + 1, 10)
        assert numbers(await store.page(ALL, FIRST)) == []

    with_sqlite(path, trim_all)
    append_and_read(other, [row(4), row(5)], [5, 4])
    path.unlink()
    other.rename(path)
    append_and_read(path, [], [5, 4])
    append_and_read(path, [row(6)], [6, 5, 4])


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    append_and_read(path, [row(1)], [1])
    connection = sqlite3.connect(index_path(path))
    connection.execute("PRAGMA user_version = 77")
    connection.close()
    append_and_read(path, [row(2)], [2, 1])


def test_numbers_of_rows_are_not_used_again_when_all_were_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def trim_all(store: SQLiteStore) -> None:
        await store.append([row(1), row(2)])
        assert numbers(await store.page(ALL, FIRST)) == [2, 1]
        assert not await store.trim(NOW_MS + 1, 10)
        assert numbers(await store.page(ALL, FIRST)) == []

    with_sqlite(path, trim_all)
    append_and_read(path, [row(3)], [3])


def test_what_is_trimmed_leaves_the_index(tmp_path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.append([Row((NOW_MS + n << 80), row(n).transaction) for n in range(10)])
        assert (await store.page(ALL, Portion(3, with_total=True))).total == 10
        assert await store.trim(NOW_MS + 8, 5)
        assert (await store.page(ALL, Portion(3, with_total=True))).total == 5
        assert not await store.trim(NOW_MS + 8, 5)
        page = await store.page(ALL, Portion(3, with_total=True))
        assert (numbers(page), page.total) == ([9, 8], 2)
        assert numbers(await store.page(Question(user_id="u-0"), FIRST)) == [9]

    with_sqlite(tmp_path / "ledger.db", body)


def with_index(path: Path, body: Callable[[SQLiteStore, Index], Awaitable[None]]) -> None:
    """The same with an index that nobody but the test has follow it."""

    async def with_both(store: SQLiteStore) -> None:
        index = Index(path.with_name("index"), path, step_rows=100)
        try:
            await body(store, index)
        finally:
            index.close()

    with_sqlite(path, with_both)


def test_what_was_trimmed_leaves_the_index_though_others_arrive_all_the_time(tmp_path: Path) -> None:
    async def body(store: SQLiteStore, index: Index) -> None:
        await store.append([row(number) for number in range(1, 6)])
        index.step(Tip(0, 0, 5, 0))
        await store.trim(NOW_MS + 1, 3)
        for seq in (6, 7):
            await store.append([row(seq)])
            tip = Tip(0, 0, seq, 1)
            index.step(tip)
            assert index.has_come_to(tip)
            assert index.page(ALL, Portion(9, with_total=True)).total == seq - 3

    with_index(tmp_path / "ledger.db", body)


def test_rows_that_are_trimmed_while_they_are_read_hide_none_behind_them(tmp_path: Path) -> None:
    async def body(store: SQLiteStore, index: Index) -> None:
        # What happened last came first, and so goes first.
        await store.append([row(number, NOW_MS - number) for number in range(10)])
        index.step(Tip(0, 0, 10, 0))
        assert await store.trim(NOW_MS + 1, 5)
        first = index.page(ALL, Portion(3, with_total=True))
        assert (numbers(first), first.has_more, first.total) == ([5, 6, 7], True, 5)
        assert await store.trim(NOW_MS + 1, 1)
        rest = index.page(ALL, Portion(3, before=place(first.rows[-1])))
        assert (numbers(rest), rest.has_more) == ([8, 9], False)

    with_index(tmp_path / "ledger.db", body)


def test_more_rows_of_a_millisecond_than_it_has_places(tmp_path: Path) -> None:
    # Before 1970 a millisecond has 2^17; those past it stand among the rows of the next one.
    places = 1 << 17

    async def body(store: SQLiteStore) -> None:
        await store.append([row(1, timestamp_ms=-999), row(2, timestamp_ms=-998)])
        await store.append([row(number, timestamp_ms=-1000) for number in range(3, places + 103)])
        await store.append([row(places + 103, timestamp_ms=-999)])
        page = await store.page(ALL, Portion(100, with_total=True))
        assert page.total == places + 103
        found = list(numbers(page))
        while page.has_more and len(found) < 300:
            page = await store.page(ALL, Portion(100, before=place(page.rows[-1])))
            found += numbers(page)
        assert len(set(found)) == len(found) == 300
        assert found[0] == 2
        assert {1, places + 103} < set(found[1:110])

    with_sqlite(tmp_path / "ledger.db", body)


def test_who_asks_while_too_much_is_missing_is_asked_to_come_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def fill(store: SQLiteStore) -> None:
        await store.append([row(number) for number in range(50)])

    with_sqlite(path, fill)
    index_path(path).unlink()

    async def ask() -> None:
        feed = Feed(path, step_rows=10, behind_rows_max=20)
        try:
            await feed.open(Tip(0, 0, 50, 0))
            with pytest.raises(StoreRefused, match="catching up"):
                await feed.page(ALL, FIRST)
            # It follows by itself.
            while True:
                try:
                    page = await feed.page(ALL, FIRST)
                    break
                except StoreRefused:
                    await asyncio.sleep(0.01)
            assert len(page.rows) == 50
        finally:
            await feed.close()

    asyncio.run(ask())


def test_an_index_that_could_not_be_made_is_tried_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    append_and_read(path, [row(number) for number in range(50)], list(range(49, -1, -1)))
    index_path(path).unlink()
    monkeypatch.setattr("app.store.sqlite_feed._REMAKE_SECONDS", 0.01)
    step, failures = Index.step, 2

    def failing(index: Index, tip: Tip) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise apsw.IOError("a disk that fails")
        step(index, tip)

    monkeypatch.setattr(Index, "step", failing)

    async def ask() -> None:
        feed = Feed(path, step_rows=10, behind_rows_max=20)
        try:
            await feed.open(Tip(0, 0, 50, 0))
            while True:
                try:
                    page = await feed.page(ALL, FIRST)
                    break
                except StoreRefused:
                    await asyncio.sleep(0.01)
            assert len(page.rows) == 50
        finally:
            await feed.close()

    asyncio.run(ask())


def test_it_goes_on_catching_up_after_a_failure_though_nothing_more_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    append_and_read(path, [row(number) for number in range(50)], list(reversed(range(50))))
    index_path(path).unlink()
    step = Index.step
    failed = threading.Event()

    def without_room_at_first(self: Index, tip: Tip) -> None:
        if not failed.is_set():
            failed.set()
            raise apsw.FullError
        step(self, tip)

    monkeypatch.setattr(Index, "step", without_room_at_first)
    monkeypatch.setattr(sqlite_feed, "_LAG_SECONDS", 0)

    async def ask() -> None:
        feed = Feed(path, step_rows=10, behind_rows_max=20)
        await feed.open(Tip(0, 0, 50, 0))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not failed.is_set():
                    await asyncio.sleep(0.001)
                while True:
                    with contextlib.suppress(StoreRefused):
                        assert len((await feed.page(ALL, FIRST)).rows) == 50
                        break
                    await asyncio.sleep(0.001)
        finally:
            await feed.close()

    asyncio.run(ask())


def test_the_loop_turns_while_words_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_columns, "_TURN_SECONDS", -1)
    # One sign becomes eighteen letters and gaps, and nothing of it is ASCII.
    longest = json.dumps({"x": "\ufdfa" * 1360}, ensure_ascii=False).encode()

    async def body(store: SQLiteStore) -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        await store.append([row(number, metadata=longest) for number in range(20)])
        turning.cancel()
        assert turns >= 20
        assert (await store.page(ALL, Portion(1, with_total=True))).total == 20

    with_sqlite(tmp_path / "ledger.db", body)


def test_an_end_waits_for_no_questions_that_are_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    append_and_read(path, [row(1)], [1])
    begun, let_go = threading.Event(), threading.Event()
    asked = 0

    def slow(_index: Index, _question: Question, _portion: Portion) -> Page:
        nonlocal asked
        asked += 1
        begun.set()
        let_go.wait(WAIT_SECONDS)
        return Page([], has_more=False)

    async def body(store: SQLiteStore) -> None:
        feed = Feed(path)
        await feed.open(Tip(0, 0, 1, 0))
        assert numbers(await feed.page(ALL, FIRST)) == [1]
        monkeypatch.setattr(Index, "page", slow)
        waiting = [asyncio.create_task(feed.page(ALL, FIRST)) for _ in range(4)]
        await asyncio.to_thread(begun.wait, WAIT_SECONDS)
        closing = asyncio.create_task(feed.close())
        await asyncio.sleep(0)
        let_go.set()
        await closing
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(end, StoreRefused) for end in ends] == [False, True, True, True]
        assert asked == 1

    with_sqlite(path, body)


def test_a_clear_is_seen_at_once_and_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def body(store: SQLiteStore) -> None:
        await store.append([row(number) for number in range(5)])
        assert len((await store.page(ALL, FIRST)).rows) == 5
        await store.clear()
        assert (await store.page(ALL, Portion(1, with_total=True))).total == 0
        assert await store.get(row(1).id) is None
        await store.append([row(7)])
        assert numbers(await store.page(ALL, FIRST)) == [7]
        await store.clear()

    with_sqlite(path, body)
    append_and_read(path, [row(8)], [8])


def test_the_secret_lives_as_long_as_the_database(tmp_path: Path) -> None:
    found: list[bytes] = []

    async def body(store: SQLiteStore) -> None:
        found.append(await store.secret())

    for name in ("one.db", "one.db", "two.db"):
        with_sqlite(tmp_path / name, body)
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 32


def test_questions_beside_commits_find_what_was_committed_before(tmp_path: Path) -> None:
    async def body(store: SQLiteStore) -> None:
        appended = 0

        async def append() -> None:
            nonlocal appended
            for start in range(0, 3000, 30):
                await store.append([row(number) for number in range(start, start + 30)])
                appended = start + 30

        appending = asyncio.create_task(append())
        generator = random.Random(1)
        while not appending.done():
            least = appended
            user = generator.randrange(3)
            page = await store.page(Question(user_id=f"u-{user}"), Portion(1, with_total=True))
            assert page.total is not None
            assert least // 3 <= page.total <= 1000
        await appending
        assert (await store.page(ALL, Portion(1, with_total=True))).total == 3000

    with_sqlite(tmp_path / "ledger.db", body)
