"""What a SQLite database is made with, and how one that is there is brought up to date."""

import secrets
from typing import Final, cast

import apsw

from app.store import migrations
from app.store.base import SECRET_BYTES, StoreUnusable

# Earlier ones can corrupt a database on a WAL reset: https://sqlite.org/wal.html#walresetbug
_SQLITE_VERSION_MIN: Final = (3, 51, 3)

_APPLIED: Final = """
    CREATE TABLE IF NOT EXISTS migrations (
        version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL
    ) STRICT;
    SELECT version, checksum FROM migrations ORDER BY version;
"""


def check_version() -> None:
    """Raises StoreUnusable where the library is one that may lose rows."""
    version = tuple(map(int, apsw.sqlite_lib_version().split(".")))
    if version < _SQLITE_VERSION_MIN:
        raise StoreUnusable(f"SQLite {apsw.sqlite_lib_version()} has a known WAL corruption bug")


def migrate(connection: apsw.Connection) -> list[str]:
    """Bring the schema up to date; the names of what was applied.

    Behind an error, of apsw's or a MigrationError, its transaction is still to be rolled back.
    """
    connection.execute("BEGIN IMMEDIATE")
    applied = {
        cast(int, version): str(checksum)
        for version, checksum in connection.execute(_APPLIED).fetchall()
    }
    missing = migrations.pending(migrations.load("sqlite"), applied)
    for migration in missing:
        connection.execute(migration.sql)
        connection.execute(
            "INSERT INTO migrations VALUES (?, ?, ?)",
            (migration.version, migration.name, migration.checksum),
        )
    connection.execute("COMMIT")
    return [migration.name for migration in missing]


def drawn_secret(connection: apsw.Connection) -> bytes:
    """The database's own secret, which is drawn when it has none."""
    drawn = secrets.token_bytes(SECRET_BYTES)
    connection.execute(
        "INSERT INTO secret SELECT ? WHERE NOT EXISTS (SELECT * FROM secret)", (drawn,)
    ).fetchall()
    return cast(bytes, connection.execute("SELECT value FROM secret").fetchall()[0][0])
