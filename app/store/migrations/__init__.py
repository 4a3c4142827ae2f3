"""The schema's history: numbered SQL files, one directory a dialect, applied once and in order.

A file that has shipped is never edited; a change is the next number.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple


class Migration(NamedTuple):
    """One step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Tells an edited file from the one that was applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationError(Exception):
    """The database's history is not this program's; the message says where they part."""


def load(dialect: str) -> list[Migration]:
    """Every migration of a dialect, in order."""
    files = (resources.files(__name__) / dialect).iterdir()
    return [
        Migration(int(file.name.split("_")[0]), file.name, file.read_text("utf-8"))
        for file in sorted(files, key=lambda file: file.name)
        if file.name.endswith(".sql")
    ]


def pending(migrations: list[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """The migrations still to apply, given the checksum of each applied version.

    Raises MigrationError where the database is newer than the program or a file was edited.
    """
    known = {migration.version: migration for migration in migrations}
    for version, checksum in applied.items():
        if version not in known:
            raise MigrationError(f"the database is at schema version {version}, newer than this program")
        if known[version].checksum != checksum:
            raise MigrationError(f"{known[version].name} is not the file that was applied")
    return [migration for migration in migrations if migration.version not in applied]
