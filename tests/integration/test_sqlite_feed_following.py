"""How the feed's index follows its ledger: what is added, what is trimmed, and what fails meanwhile."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from app.core.question import Page, Portion, Question, place
from app.core.transaction import Row
from app.store import sqlite_feed
from app.store.base import StoreRefused
from app.store.sqlite import SQLiteStore
from app.store.sqlite_feed import Feed
from app.store.sqlite_index import Index, Tip
from tests.support.index import ALL, FIRST, NOW_MS, append_and_read, index_path, numbers, row
from tests.support.stores import with_sqlite
from tests.support.thread import WAIT_SECONDS


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


def fifty_missing(directory: Path) -> Path:
    """A ledger with fifty rows, none of which is in its index."""
    path = directory / "ledger.db"
    append_and_read(path, [row(number) for number in range(50)], list(reversed(range(50))))
    index_path(path).unlink()
    return path


def with_feed(path: Path, body: Callable[[Feed], Awaitable[None]]) -> None:
    """The same with the feed of such a ledger: more are missing than who reads waits for."""

    async def run() -> None:
        feed = Feed(path, step_rows=10, behind_rows_max=20)
        await feed.open(Tip(0, 0, 50, 0))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await body(feed)
        finally:
            await feed.close()

    asyncio.run(run())


def test_who_asks_while_too_much_is_missing_is_asked_to_come_again(tmp_path: Path) -> None:
    async def body(feed: Feed) -> None:
        with pytest.raises(StoreRefused, match="catching up"):
            await feed.page(ALL, FIRST)
        # It follows by itself.
        while True:
            with contextlib.suppress(StoreRefused):
                assert len((await feed.page(ALL, FIRST)).rows) == 50
                break
            await asyncio.sleep(0.01)

    with_feed(fifty_missing(tmp_path), body)


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError], ids=["kept", "made anew"])
def test_it_goes_on_catching_up_after_failures_though_nobody_asks_and_nothing_more_is_kept(
    error: type[apsw.Error], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fifty_missing(tmp_path)
    step, failures, caught_up = Index.step, 2, threading.Event()

    def failing_at_first(index: Index, tip: Tip) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise error("a disk that fails")
        step(index, tip)
        if index.has_come_to(tip):
            caught_up.set()

    async def body(feed: Feed) -> None:
        assert await asyncio.to_thread(caught_up.wait, WAIT_SECONDS)
        assert failures == 0
        assert len((await feed.page(ALL, FIRST)).rows) == 50

    monkeypatch.setattr(Index, "step", failing_at_first)
    monkeypatch.setattr(sqlite_feed, "_LAG_SECONDS", 0)
    monkeypatch.setattr(sqlite_feed, "_REMAKE_SECONDS", 0.01)
    with_feed(path, body)


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
