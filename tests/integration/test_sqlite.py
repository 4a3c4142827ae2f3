"""What only a database file has: a schema with a history, a lock, and a disk that fails."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from app.store import migrations
from app.store.base import StoreFailed, StoreRefused, StoreUnusable
from app.store.sqlite import SQLiteStore
from tests.support.stores import nothing, row, with_sqlite


def rows_in(path: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT seq, epoch FROM transactions ORDER BY seq").fetchall()
    finally:
        connection.close()


def test_rows_are_numbered_in_order_of_arrival_and_no_number_is_used_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def fill_and_empty(store: SQLiteStore) -> None:
        await store.append([row(1), row(2)])
        await store.clear()
        assert not await store.purge(100)

    async def fill(store: SQLiteStore) -> None:
        await store.append([row(3)])

    with_sqlite(path, fill_and_empty)
    assert rows_in(path) == []
    with_sqlite(path, fill)
    assert rows_in(path) == [(3, 1)]


def test_cleared_rows_stay_cleared_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    async def fill_and_clear(store: SQLiteStore) -> None:
        await store.append([row(1)])
        await store.clear()

    async def look(store: SQLiteStore) -> None:
        assert list((await store.tally(0, 2000, 1)).found) == []

    with_sqlite(path, fill_and_clear)
    with_sqlite(path, look)


def test_the_directory_is_made_where_there_is_none(tmp_path: Path) -> None:
    with_sqlite(tmp_path / "a" / "b" / "ledger.db", nothing)
    assert (tmp_path / "a" / "b" / "ledger.db").exists()


def test_a_second_process_is_kept_off(tmp_path: Path) -> None:
    async def open_again(store: SQLiteStore) -> None:
        with pytest.raises(StoreUnusable, match="in use by another process"):
            await SQLiteStore(tmp_path / "ledger.db").open()

    with_sqlite(tmp_path / "ledger.db", open_again)


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with_sqlite(path, nothing)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO migrations VALUES (9999, '9999_later.sql', 'x')")
    connection.close()
    with pytest.raises(StoreUnusable, match="newer than this program"):
        with_sqlite(path, nothing)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(StoreUnusable, match=r"cannot use .*ledger\.db"):
        with_sqlite(path, nothing)


@pytest.mark.parametrize("damage", ["DELETE FROM ledger", "INSERT INTO ledger SELECT * FROM ledger"])
def test_a_damaged_ledger_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.db"
    with_sqlite(path, nothing)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(StoreUnusable, match="damaged"):
        with_sqlite(path, nothing)


def test_an_sqlite_with_the_wal_reset_bug_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apsw.sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(StoreUnusable, match=r"SQLite 3\.51\.2 .* corruption"):
        with_sqlite(tmp_path / "ledger.db", nothing)


def test_an_edited_migration_is_refused() -> None:
    first = migrations.load("sqlite")[0]
    with pytest.raises(migrations.MigrationError, match=first.name):
        migrations.pending([first], {first.version: "another checksum"})


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    versions = [migration.version for migration in migrations.load("sqlite")]
    assert versions == list(range(1, len(versions) + 1))


def test_a_commit_is_synced_and_checkpoints_are_the_stores_own(tmp_path: Path) -> None:
    async def look(store: SQLiteStore) -> None:
        connection = store._connection
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("synchronous") == 2  # FULL
        assert connection.pragma("wal_autocheckpoint") == 0
        # Not SQLite's defaults, so that these tell that the settings were made at all.
        assert connection.pragma("cache_size") == -32_768
        assert connection.pragma("cache_spill") == 0
        assert connection.pragma("temp_store") == 2

    with_sqlite(tmp_path / "ledger.db", look)


def test_the_wal_is_copied_back_before_it_grows_without_bound(tmp_path: Path) -> None:
    async def fill(store: SQLiteStore) -> None:
        for number in range(60):
            await store.append([row(number * 2000 + n, number) for n in range(2000)])
        wal = tmp_path / "ledger.db-wal"
        # Two times the bound: what it may hold, and the batch that went past it.
        assert wal.stat().st_size < 32 * 2**20

    with_sqlite(tmp_path / "ledger.db", fill)


class FaultyFile(apsw.VFSFile):
    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw's name
        FaultyDisk.note("sync")
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - apsw's name
        FaultyDisk.note("write")
        super().xWrite(data, offset)


class FaultyDisk(apsw.VFS):
    """The real disk, but the n-th write or sync from now on fails as it is told to."""

    fault: str = ""
    countdown: int = 0
    error: type[apsw.Error] = apsw.IOError

    def __init__(self) -> None:
        super().__init__("faulty", base="unix", makedefault=True)

    def xOpen(  # noqa: N802 - apsw's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> FaultyFile:
        return FaultyFile("unix", name, flags)

    @classmethod
    def fail(cls, fault: str, countdown: int, error: type[apsw.Error]) -> None:
        cls.fault, cls.countdown, cls.error = fault, countdown, error

    @classmethod
    def note(cls, what: str) -> None:
        if what == cls.fault:
            cls.countdown -= 1
            if cls.countdown == 0:
                raise cls.error(f"injected: {what}")


@pytest.fixture
def disk() -> Iterator[type[FaultyDisk]]:
    vfs = FaultyDisk()
    yield FaultyDisk
    FaultyDisk.fail("", 0, apsw.IOError)
    vfs.unregister()


def test_after_a_failed_sync_nothing_is_acknowledged_any_more(
    tmp_path: Path, disk: type[FaultyDisk]
) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.append([row(1)])
        disk.fail("sync", 1, apsw.IOError)
        with pytest.raises(StoreFailed):
            await store.append([row(2)])
        # The disk is well again, and SQLite alone would go on as if nothing had happened.
        with pytest.raises(StoreFailed):
            await store.append([row(3)])

    with_sqlite(tmp_path / "ledger.db", body)


def test_a_full_disk_refuses_the_batch_whole_and_takes_the_next_when_there_is_room(
    tmp_path: Path, disk: type[FaultyDisk]
) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.append([row(1)])
        for write in range(1, 4):
            disk.fail("write", write, apsw.FullError)
            with pytest.raises(StoreRefused):
                await store.append([row(number, number) for number in range(500)])
            assert len((await store.tally(0, 2000, 1)).found) == 1
        disk.fail("", 0, apsw.IOError)
        await store.append([row(2, 1001)])
        assert len((await store.tally(0, 2000, 1)).found) == 2

    with_sqlite(tmp_path / "ledger.db", body)


def test_a_probe_finds_a_full_disk_full(tmp_path: Path, disk: type[FaultyDisk]) -> None:
    async def body(store: SQLiteStore) -> None:
        disk.fail("write", 1, apsw.FullError)
        with pytest.raises(StoreRefused):
            await store.probe()
        await store.probe()

    with_sqlite(tmp_path / "ledger.db", body)


def test_a_sync_that_fails_in_a_checkpoint_is_not_overlooked(
    tmp_path: Path, disk: type[FaultyDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.sqlite._WAL_PAGES_MAX", 1)

    async def body(store: SQLiteStore) -> None:
        # The first sync is the commit's, the next ones are the checkpoint's.
        disk.fail("sync", 2, apsw.IOError)
        with pytest.raises(StoreFailed):
            await store.append([row(1)])

    with_sqlite(tmp_path / "ledger.db", body)
