"""The feed's index beside a SQLite ledger: that it is derived, and what happens when it is not there."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from app.core.question import Portion, place
from app.store import sqlite_columns
from app.store.base import StoreRefused
from app.store.sqlite import SQLiteStore
from tests.support.index import ALL, FIRST, NOW_MS, append_and_read, index_path, numbers, row
from tests.support.stores import with_sqlite


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
