"""PostgreSQL's schema: whether it is up to date, and how it becomes so."""

from typing import Any, Final

from psycopg import AsyncConnection

from app.store import migrations
from app.store.base import StoreUnusable
from app.store.migrations import Migration, MigrationError
from app.store.postgres_hold import LOCK_ALONE_FOR_NOW, value_of

_VERSION_MIN: Final = 13

_HAS_LEDGER: Final = "SELECT to_regclass('ledger') IS NOT NULL"

_HAS_HISTORY: Final = "SELECT to_regclass('migrations') IS NOT NULL"

_APPLIED: Final = "SELECT version, checksum FROM migrations"

_MAKE_HISTORY: Final = """
    CREATE TABLE IF NOT EXISTS migrations (
        version integer NOT NULL PRIMARY KEY, name text NOT NULL, checksum text NOT NULL
    )
"""

# Of two that start at once one waits, and then finds nothing to do.
_LOCK: Final = "SELECT pg_advisory_xact_lock(1297042529, 0)"


async def check(connection: AsyncConnection[Any]) -> None:
    """Raises StoreUnusable where the schema is not this program's."""
    if missing := await _missing(connection):
        raise StoreUnusable(
            f"the database has no {missing[0].name} yet: run `python -m app migrate` first"
        )


async def migrate(connection: AsyncConnection[Any]) -> list[str]:
    """Bring the schema up to date; the names of what was applied. Raises StoreUnusable."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        await connection.execute(_MAKE_HISTORY)
        missing = await _missing(connection)
        if missing and await _is_in_use(connection):
            raise StoreUnusable("the database is in use: stop every process that uses it first")
        for migration in missing:
            await connection.execute(migration.sql.encode())
            await connection.execute(
                "INSERT INTO migrations VALUES (%s, %s, %s)", (*migration[:2], migration.checksum)
            )
    return [migration.name for migration in missing]


async def _is_in_use(connection: AsyncConnection[Any]) -> bool:
    """Whether somebody is there, who knows the schema as it is. Until it has changed, nobody comes."""
    has_ledger = await value_of(connection, _HAS_LEDGER)
    return bool(has_ledger and not await value_of(connection, LOCK_ALONE_FOR_NOW))


async def _missing(connection: AsyncConnection[Any]) -> list[Migration]:
    version = connection.info.server_version // 10_000
    if version < _VERSION_MIN:
        raise StoreUnusable(f"PostgreSQL {version} is too old: {_VERSION_MIN} or later is needed")
    found = await (await connection.execute(_HAS_HISTORY)).fetchone()
    applied = await (await connection.execute(_APPLIED)).fetchall() if found and found[0] else []
    try:
        return migrations.pending(migrations.load("postgresql"), dict(applied))
    except MigrationError as error:
        raise StoreUnusable(f"cannot use the database: {error}") from error
