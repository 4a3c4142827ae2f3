"""`seed` and `clean` as a shell sees them, and what a service finds afterwards."""

import contextlib
import io
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest

from app.__main__ import main
from app.store import postgres_hold
from tests.support.ledger_file import rows_in, salvaged_rows, sqlite_url
from tests.support.postgres import needs_postgres, new_database_url, rows_in_database
from tests.support.process import WAIT_SECONDS, ServiceProcess


class Told(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


Command = Callable[..., Told]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command in this process: another one would take its time to start."""
    umask = os.umask(0o022)

    def run(url: str, *words: str) -> Told:
        monkeypatch.setattr("sys.argv", ["app", *words])
        monkeypatch.setattr("sys.stdin", io.StringIO())
        monkeypatch.setenv("DATABASE_URL", url)
        return Told(main(), *capsys.readouterr())

    yield run
    os.umask(umask)


@contextlib.contextmanager
def terminal(url: str, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command at a terminal of its own; the value is its process, and the terminal's other end."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "app", *words]
    with subprocess.Popen(
        command, env={"DATABASE_URL": url}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(terminal: int, text: str) -> str:
    """What the terminal shows until it shows that."""
    shown = b""
    while text.encode() not in shown:
        shown += read_some(terminal)
    return shown.decode()


def read_all(terminal: int) -> str:
    shown = b""
    # The last reader of a terminal whose process has ended is told so by an error.
    with contextlib.suppress(OSError):
        while part := read_some(terminal):
            shown += part
    return shown.decode()


def read_some(terminal: int) -> bytes:
    ready, _, _ = select.select([terminal], [], [], WAIT_SECONDS)
    assert ready, "nothing more is shown"
    return os.read(terminal, 4096)


def taken_bytes(directory: Path) -> int:
    """The space that all files of a database take."""
    return sum(file.stat().st_size for file in directory.iterdir())


def are_private(directory: Path) -> bool:
    """Whether no other user may read what is kept."""
    return all(file.stat().st_mode & 0o077 == 0 for file in directory.iterdir())


def test_what_was_seeded_is_served_and_cleaned_away_again(tmp_path: Path, run: Command) -> None:
    path = tmp_path / "data" / "ledger.db"
    url = sqlite_url(path)
    told = run(url, "seed", "--rows", "5000", "--days", "1")
    assert told.status == 0, told.err
    assert told.out.startswith("5000 of 5000 transactions in ")
    assert are_private(path.parent)
    assert len(rows_in(path)) == 5000
    seeded_bytes = taken_bytes(path.parent)
    with ServiceProcess({"DATABASE_URL": url, "WINDOW_SECONDS": "3600"}) as service:
        with service.client() as client:
            # A twenty-fourth of a day.
            assert 150 < client.get("/stats").json()["count"] <= 5000 / 24 + 2
        for words in (("seed", "--rows", "1"), ("clean", "--yes")):
            refused = run(url, *words)
            assert (refused.status, refused.out) == (1, "")
            assert "millrace: ledger.db is in use by another process\n" in refused.err
    told = run(url, "clean", "--yes")
    assert (told.status, told.out) == (0, f"{path}: 5000 transactions deleted\n")
    assert rows_in(path) == {}
    assert taken_bytes(path.parent) < seeded_bytes / 10
    assert are_private(path.parent)
    assert run(url, "seed", "--rows", "10").status == 0
    assert len(salvaged_rows(path, tmp_path / "copy")) == 10


@needs_postgres
def test_a_server_is_seeded_and_cleaned_as_well(run: Command) -> None:
    url = new_database_url()
    told = run(url, "seed", "--rows", "3000")
    assert told.status == 0, told.err
    assert told.out.startswith("3000 of 3000 transactions in ")
    assert len(rows_in_database(url)) == 3000
    told = run(url, "clean", "--yes")
    where = "the database of DATABASE_URL"
    assert (told.status, told.out) == (0, f"{where}: 3000 transactions deleted\n")
    assert rows_in_database(url) == {}
    with psycopg.connect(url) as holder:
        # As a service does.
        holder.execute("SELECT pg_advisory_lock(1297042529, 'ledger'::regclass::oid::int)")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postgres_hold, "HELD_SECONDS", 0.1)
            for words in (("seed", "--rows", "1"), ("clean", "--yes")):
                refused = run(url, *words)
                assert (refused.status, refused.out) == (1, "")
                assert "millrace: the database is in use by another process\n" in refused.err
    missing = urlsplit(url)._replace(path="/nowhere").geturl()
    refused = run(missing, "clean", "--yes")
    assert (refused.status, refused.out) == (1, "")
    assert "millrace: cannot use PostgreSQL: " in refused.err


def test_an_interrupted_seeding_leaves_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with terminal(sqlite_url(path), "seed", "--rows", "1000000") as (process, shown):
        read_until(shown, "  1%")
        process.send_signal(signal.SIGINT)
        told = read_all(shown)
        assert process.wait(WAIT_SECONDS) == 130
    kept = len(salvaged_rows(path, tmp_path / "copy"))
    assert 2000 <= kept < 1_000_000
    assert kept % 2000 == 0
    assert f"\n{kept} of 1000000 transactions in " in told
    # Nor does the index that was being made say a word.
    assert "rror" not in told


@pytest.mark.parametrize(
    ("answer", "status", "left"),
    [("y\n", 0, 0), ("n\n", 1, 30), ("\x04", 130, 30)],
    ids=["yes", "no", "end of input"],
)
def test_cleaning_asks_first(tmp_path: Path, run: Command, answer: str, status: int, left: int) -> None:
    path = tmp_path / "ledger.db"
    assert run(sqlite_url(path), "seed", "--rows", "30").status == 0
    with terminal(sqlite_url(path), "clean") as (process, shown):
        asked = read_until(shown, "? [y/N]: ")
        assert asked == f"{path} holds 30 transactions. Delete all of them? [y/N]: "
        os.write(shown, answer.encode())
        told = read_all(shown)
        assert process.wait(WAIT_SECONDS) == status
    assert len(salvaged_rows(path, tmp_path / "copy")) == left
    assert ("nothing was deleted" in told) == (status == 1)


@pytest.mark.parametrize(
    ("url", "words", "status", "complaint"),
    [
        ("memory://", "seed --rows 1", 2, "millrace: DATABASE_URL: memory:// "),
        ("sqlite:////proc/l.db", "seed --rows 1", 1, "millrace: cannot use /proc/l.db: "),
        ("memory://", "seed --rows 0", 2, "Invalid value for '--rows'"),
        ("memory://", "seed", 2, "Missing option '--rows'"),
        ("memory://", "clean --yes", 2, "millrace: DATABASE_URL: memory:// "),
        ("sqlite:////nowhere/l.db", "clean --yes", 1, "millrace: there is no database at /nowhere/l.db"),
        ("sqlite:////nowhere/l.db", "clean", 2, "say --yes"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_line_that_says_why(
    run: Command, url: str, words: str, status: int, complaint: str
) -> None:
    told = run(url, *words.split())
    assert (told.status, told.out) == (status, "")
    assert complaint in told.err.splitlines()[-1]


@pytest.mark.parametrize("words", ["seed --rows 1", "clean --yes"])
def test_a_database_that_takes_nothing_ends_a_command_with_a_line(
    tmp_path: Path, run: Command, words: str
) -> None:
    path = tmp_path / "ledger.db"
    assert run(sqlite_url(path), "seed", "--rows", "30").status == 0
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    # Locks of files are between processes.
    with terminal(sqlite_url(path), *words.split()) as (process, shown):
        told = read_all(shown)
        assert process.wait(WAIT_SECONDS) == 1
    connection.close()
    assert told.splitlines()[-1].startswith(f"millrace: cannot use {path}: ")
    assert len(rows_in(path)) == 30
