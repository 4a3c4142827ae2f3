"""`python -m app backup FILE`: a whole copy or none, beside a service that goes on."""

import asyncio
import errno
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from app.store import backup
from app.store.backup import BackupFailed, copy_database
from tests.support.ledger_file import figures, figures_of, rows_in, salvaged_rows, sqlite_url
from tests.support.load import Load
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.stores import nothing, with_sqlite


def run_backup(file: Path | str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, sys.executable, "-m", "app", "backup", str(file)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def test_a_copy_taken_under_load_is_one_moment_of_it_and_a_start_from_it_answers_the_same(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "elsewhere" / "copy.db"
    copy.parent.mkdir()
    environment = {"DATABASE_URL": sqlite_url(path), "WINDOW_SECONDS": "3600"}
    with ServiceProcess(environment) as service:
        load = Load(service.serving(), connections=16, batch_connections=2)

        async def back_up_under_load() -> tuple[dict[str, int], subprocess.CompletedProcess[str]]:
            async with load.under_way():
                await load.reach(500)
                before = dict(load.acknowledged)
                told = await asyncio.to_thread(run_backup, copy, **environment)
                await load.reach(len(load.acknowledged) + 500)
                service.terminate()
            return before, told

        before, told = asyncio.run(back_up_under_load())
        assert service.exit_status() == 0
    assert told.returncode == 0, told.stderr
    assert [entry.name for entry in copy.parent.iterdir()] == ["copy.db"]
    assert copy.stat().st_mode & 0o777 == 0o600
    kept, copied = rows_in(path), salvaged_rows(copy, tmp_path / "salvaged")
    assert told.stdout == f"{copy}: {len(copied)} transactions, {copy.stat().st_size} bytes\n"
    # Everything acknowledged before it began, and of the rest what came first.
    assert before.items() <= copied.items() <= kept.items()
    assert len(copied) < len(kept)
    order = rows_in_order(path)
    assert order[: len(copied)] == rows_in_order(copy)
    with ServiceProcess({**environment, "DATABASE_URL": sqlite_url(copy)}) as restored:
        with restored.client() as client:
            assert figures(client) == figures_of(copied)
        restored.terminate()
        assert restored.exit_status() == 0
    assert rows_in(copy) == copied


def rows_in_order(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT * FROM transactions ORDER BY seq").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_a_copy_of_a_stopped_service_has_all_and_leaves_the_file_as_it_is(
    tmp_path: Path, is_killed: bool
) -> None:
    path = tmp_path / "ledger.db"
    with ServiceProcess({"DATABASE_URL": sqlite_url(path)}) as service:
        load = Load(service.serving(), connections=4)
        load.run_until(100, service.kill if is_killed else service.terminate)
        service.exit_status()
    left = {each.name: each.read_bytes() for each in tmp_path.glob("ledger.db*") if is_data(each)}
    told = run_backup(tmp_path / "copy.db", DATABASE_URL=sqlite_url(path))
    assert told.returncode == 0, told.stderr
    assert {name: (tmp_path / name).read_bytes() for name in left} == left
    # Of what SQLite leaves there, nothing is to be taken over by the next start.
    assert is_killed or (tmp_path / "ledger.db-wal").stat().st_size == 0
    assert load.acknowledged.items() <= rows_in(tmp_path / "copy.db").items()
    assert rows_in(tmp_path / "copy.db") == rows_in(path)


def is_data(file: Path) -> bool:
    return file.name in ("ledger.db", "ledger.db-wal")


@pytest.mark.parametrize("name", ["copy.db", "copy.db.part", "ledger.db"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    path, taken = tmp_path / "ledger.db", tmp_path / name
    with_sqlite(path, nothing)
    if taken != path:
        taken.write_bytes(b"dear to someone")
    before = taken.read_bytes()
    with pytest.raises(BackupFailed, match=rf"{re.escape(str(taken))} exists"):
        copy_database(path, tmp_path / name.removesuffix(".part"))
    assert taken.read_bytes() == before


def test_a_copy_that_turns_out_damaged_is_not_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "copy.db"
    with_sqlite(path, nothing)
    whole_copy = backup._copy

    def broken_copy(source: apsw.Connection, part: Path) -> None:
        whole_copy(source, part)
        with part.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 200)

    monkeypatch.setattr(backup, "_copy", broken_copy)
    with pytest.raises(BackupFailed):
        copy_database(path, copy)
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("copy")] == []


@pytest.mark.parametrize(
    ("url", "status", "complaint"),
    [
        ("memory://", 2, "DATABASE_URL: memory:// keeps nothing that could be backed up"),
        ("sqlite:////nowhere/ledger.db", 1, "there is no database at /nowhere/ledger.db"),
    ],
)
def test_what_cannot_be_copied_is_refused_with_one_line(
    tmp_path: Path, url: str, status: int, complaint: str
) -> None:
    told = run_backup(tmp_path / "copy.db", DATABASE_URL=url)
    assert (told.returncode, told.stdout) == (status, "")
    assert told.stderr == f"millrace: {complaint}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_refused_with_one_line(tmp_path: Path) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "nowhere" / "copy.db"
    with_sqlite(path, nothing)
    told = run_backup(copy, DATABASE_URL=sqlite_url(path))
    assert told.returncode == 1
    assert told.stderr == f"millrace: cannot write {copy}: No such file or directory\n"


@pytest.mark.parametrize("file", [".", "/"])
def test_a_directory_without_a_name_is_refused_with_one_line(tmp_path: Path, file: str) -> None:
    path = tmp_path / "ledger.db"
    with_sqlite(path, nothing)
    told = run_backup(file, DATABASE_URL=sqlite_url(path))
    assert told.returncode == 1
    assert told.stderr == f"millrace: {file} is a directory, and a copy is a file\n"


def test_a_directory_that_cannot_be_synced_is_refused_before_anything_is_there(tmp_path: Path) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "closed" / "copy.db"
    with_sqlite(path, nothing)
    copy.parent.mkdir(mode=0o300)
    command: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root reads any directory, and there is no setpriv to take that from it")
        command = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    told = run_backup(copy, *command, DATABASE_URL=sqlite_url(path))
    copy.parent.chmod(0o700)
    assert told.returncode == 1
    assert told.stderr == f"millrace: cannot write {copy}: Permission denied\n"
    assert list(copy.parent.iterdir()) == []


def test_a_copy_whose_name_was_not_synced_is_not_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "elsewhere" / "copy.db"
    with_sqlite(path, nothing)
    copy.parent.mkdir()
    sync = os.fsync

    def broken_sync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        sync(file)

    monkeypatch.setattr(os, "fsync", broken_sync)
    with pytest.raises(BackupFailed, match=r"cannot write .*: Input/output error"):
        copy_database(path, copy)
    assert list(copy.parent.iterdir()) == []


def test_a_file_that_appears_in_the_last_moment_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "copy.db"
    with_sqlite(path, nothing)
    copy.write_bytes(b"dear to someone")
    # As it looks to whoever asks before it is there.
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(BackupFailed, match=rf"{re.escape(str(copy))} exists by now"):
        copy_database(path, copy)
    assert copy.read_bytes() == b"dear to someone"
    assert not copy.with_name("copy.db.part").exists()


def test_where_a_file_cannot_have_a_second_name_a_copy_takes_its_name_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "elsewhere" / "copy.db"
    with_sqlite(path, nothing)
    copy.parent.mkdir()

    def no_link(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    assert copy_database(path, copy).transactions == 0
    assert [each.name for each in copy.parent.iterdir()] == ["copy.db"]


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (id)")
    connection.close()
    with pytest.raises(BackupFailed, match=r"cannot copy .*ledger\.db: .*no such table"):
        copy_database(path, tmp_path / "copy.db")
