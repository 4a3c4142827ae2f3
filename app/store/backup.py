"""A copy of a database file, consistent to one commit, while the service goes on writing to it.

The copy is read in one transaction of a read-only connection, which neither writes
to the database nor checkpoints: the service's own is the only one that does. While it is being read the
WAL cannot start over, so it grows by what is written meanwhile. Beside the database of a service that
was stopped, SQLite leaves an empty `-wal` and a `-shm`, which the next start takes over: to do without
them is to read without locks, and to remove them is to race with that start.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast

import apsw

# The copy is synced as it grows: a sync of all at the end would have the service's own wait behind it.
_STEP_PAGES: Final = 256
# A start that recovers the WAL has it to itself for some milliseconds.
_BUSY_MS: Final = 5000

_COUNT: Final = """
    SELECT count(*) FROM transactions WHERE epoch = (SELECT epoch FROM ledger)
"""

# A finished file: nobody writes to it, so it is read without locks, and without a WAL beside it.
_AT_REST: Final = "?mode=ro&immutable=1"

# What file systems without a second name for a file say to os.link, FAT for one.
_NO_LINKS: Final = frozenset((errno.EPERM, errno.ENOTSUP, errno.ENOSYS))


class BackupFailed(Exception):
    """There is no copy; the message tells an operator why, in one line."""


class Copied(NamedTuple):
    """What a copy holds."""

    transactions: int
    size_bytes: int


def copy_database(source: Path, target: Path) -> Copied:
    """Copy the database at `source` to a new file at `target`, whole and synced. Raises BackupFailed.

    It is written beside its place as `*.part` and takes its name when it has been checked.
    """
    if not target.name:
        raise BackupFailed(f"{target} is a directory, and a copy is a file")
    part = target.with_name(target.name + ".part")
    try:
        if os.path.lexists(target):
            raise BackupFailed(f"{target} exists, and is not overwritten")
        # The directory first: where it cannot be opened, it cannot be synced at the end.
        with _reader(source) as connection, _opened(target.parent) as directory, _new_file(part):
            _copy(connection, part)
            copied = _check(part)
            _name(part, target)
            try:
                part.unlink(missing_ok=True)
                os.fsync(directory)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            return copied
    except FileExistsError:
        raise BackupFailed(f"{part} exists: another backup is writing it, or left it") from None
    except OSError as error:
        raise BackupFailed(f"cannot write {target}: {error.strerror}") from error
    except apsw.Error as error:
        raise BackupFailed(f"cannot copy {source}: {error}") from error


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[apsw.Connection]:
    """A connection that only reads, in a transaction that has begun."""
    if not path.is_file():
        raise BackupFailed(f"there is no database at {path}")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("BEGIN; SELECT count(*) FROM ledger").fetchall()
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[None]:
    """A file that is nobody else's to read, and gone where it was not brought to its end."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _name(part: Path, target: Path) -> None:
    """Give a file a name that is nobody's, its old one beside it or not. Raises BackupFailed."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise BackupFailed(f"{target} exists by now, and is not overwritten") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # There it cannot be done in one step.
        if os.path.lexists(target):
            raise BackupFailed(f"{target} exists by now, and is not overwritten") from None
        part.rename(target)


def _copy(source: apsw.Connection, path: Path) -> None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # What is not whole is thrown away, so it needs no journal.
        connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").fetchall()
        with connection.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(_STEP_PAGES)
                _sync(path)
    finally:
        connection.close()
    _sync(path)


def _check(path: Path) -> Copied:
    """Read the whole copy once more, as it will be read one day. Raises BackupFailed."""
    connection = apsw.Connection(
        f"{path.absolute().as_uri()}{_AT_REST}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
    )
    try:
        found = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if found != [("ok",)]:
            raise BackupFailed(f"the copy is damaged, and so is the database, maybe: {found[0][0]}")
        transactions = cast(int, connection.execute(_COUNT).fetchall()[0][0])
    finally:
        connection.close()
    return Copied(transactions, path.stat().st_size)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def _sync(path: Path) -> None:
    with _opened(path) as file:
        os.fsync(file)
