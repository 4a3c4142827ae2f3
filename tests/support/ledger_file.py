"""A database file, looked at from outside the service."""

import json
import shutil
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import httpx

Amounts = dict[str, int]


class Figures(NamedTuple):
    """What statistics say of some rows: how many, and their sum, least and greatest in units."""

    rows: int
    sum_units: int
    min_units: int
    max_units: int


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that the ledger is kept in, and their directory; not those of the feed's index."""
    beside = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    return path, *beside, path.parent


def rows_in(path: Path) -> Amounts:
    """The amount of each row by its id; SQLite recovers what a killed process left."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT hex(id), amount_units FROM transactions").fetchall()
    finally:
        connection.close()
    return _amounts(found)


def salvaged_rows(path: Path, directory: Path) -> Amounts:
    """The rows that were not cleared, read from a copy, so that the file stays as it was left.

    SQLite must find no damage.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name in (path.name, path.name + "-wal"):
        if path.with_name(name).exists():
            shutil.copy(path.with_name(name), directory)
    connection = apsw.Connection(str(directory / path.name))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = connection.execute(
            "SELECT lower(hex(id)), amount_units FROM transactions "
            "WHERE epoch = (SELECT epoch FROM ledger)"
        ).fetchall()
    finally:
        connection.close()
    return _amounts(found)


def _amounts(found: list[Any]) -> Amounts:
    amounts = {identifier.lower(): units for identifier, units in found}
    assert len(amounts) == len(found), "an id occurs twice"
    return amounts


def figures_of(amounts: Amounts) -> Figures:
    """The figures of rows, from a plain list of them."""
    units = amounts.values()
    return Figures(len(units), sum(units), min(units, default=0), max(units, default=0))


def figures(client: httpx.Client) -> Figures:
    """The figures that a service answers over its whole window, which it must be ready to."""
    answer = client.get("/stats")
    assert answer.status_code == 200, answer.text
    told = json.loads(answer.text, parse_float=Decimal)
    return Figures(told["count"], *(int(told[name] * 10**8) for name in ("sum", "min", "max")))
