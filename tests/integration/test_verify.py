"""`python -m app verify`: finds nothing in a whole database, and in a broken one what is broken."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from app.store.migrations import load
from app.store.sqlite_verification import SQLiteVerification
from tests.support.ledger_file import sqlite_url
from tests.support.load import Load
from tests.support.postgres import ask, needs_postgres, new_database_url
from tests.support.process import WAIT_SECONDS, ServiceProcess

ROWS = 12


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "verify", *words],
        env={"PATH": os.environ["PATH"], "WINDOW_SECONDS": "3600", **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def fill(environment: dict[str, str]) -> None:
    """Rows of the feed and plain ones, with and without keys, all of them in the index."""
    with ServiceProcess({"WINDOW_SECONDS": "3600", **environment}) as service:
        with service.client() as client:
            for number in range(ROWS):
                body = {
                    "user_id": f"u-{number % 3}",
                    "amount": f"{number}.25",
                    "currency": ("EUR", "USD")[number % 2],
                    "transaction_type": "card",
                    "metadata": {"merchant_name": f"Café {number}"},
                }
                key = {"idempotency-key": f"key-{number}"}
                answer = client.post("/api/v1/transactions", json=body, headers=key)
                assert answer.status_code == 201
            items = [
                {"amount": 1, "timestamp": time.time(), "idempotency_key": "item"},
                {"amount": "1e-8", "timestamp": time.time()},
            ]
            headers = {"idempotency-key": "batch"}
            answer = client.post("/transactions/batch?ids=true", json=items, headers=headers)
            assert answer.json()["accepted"] == 2
            assert len(client.get("/transactions").json()["items"]) == ROWS + 2
        service.terminate()
        assert service.exit_status() == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that a service has left."""
    path = tmp_path_factory.mktemp("whole") / "ledger.db"
    fill({"DATABASE_URL": sqlite_url(path)})
    return path


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, for a test to break."""
    for file in whole.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / whole.name


def alter(path: Path, *statements: str) -> None:
    """Change a file behind everybody's back."""
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def examine(path: Path) -> tuple[list[str], list[str]]:
    examined = asyncio.run(SQLiteVerification(path).examine())
    return examined.findings, examined.notes


def test_a_whole_database_is_all_right(copied: Path) -> None:
    told = run(DATABASE_URL=sqlite_url(copied))
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert lines[0] == f"{copied}: {ROWS + 2} transactions, {ROWS + 2} remembered answers"
    assert lines[2:] == [
        "  EUR: count 6, sum 31.50, min 0.25, max 10.25",
        "  USD: count 8, sum 38.50000001, min 0.00000001, max 11.25",
        "all right",
    ]


ID_7 = "(SELECT id FROM transactions WHERE seq = 7)"
BROKEN = {
    "edited migration": (
        "UPDATE migrations SET checksum = 'x' WHERE version = 2",
        f"schema: {load('sqlite')[1].name} is not the file that was applied",
    ),
    "newer schema": (
        "INSERT INTO migrations VALUES (99, 'x', 'x')",
        "schema: the database is at schema version 99, newer than this program",
    ),
    "secret": ("DELETE FROM secret", "schema: the table secret has 0 rows instead of one"),
    "gap": (
        "DELETE FROM transactions WHERE seq BETWEEN 3 AND 4",
        "rows: 2 are missing; the first gap ends before seq 5",
    ),
    "first rows gone": (
        "DELETE FROM transactions WHERE seq = 1",
        "rows: 1 are missing; the first gap ends before seq 2",
    ),
    "id": (
        "UPDATE transactions SET id = x'00000000000040008000000000000000' WHERE seq = 5",
        "rows: 1 with an id that is no UUID of version 7; the first is seq 5",
    ),
    "variant": (
        "UPDATE transactions SET id = x'00000000000070000000000000000000' WHERE seq = 5",
        "rows: 1 with an id that is no UUID of version 7; the first is seq 5",
    ),
    "same id": (f"UPDATE transactions SET id = {ID_7} WHERE seq = 5", "rows: 1 have the id of another"),
    "amount": (
        "UPDATE transactions SET amount_units = -9223372036854775808 WHERE seq = 5",
        "rows: 1 with an amount out of bounds; the first is seq 5",
    ),
    "currency": (
        "UPDATE transactions SET currency = 'eur' WHERE seq > 5",
        "rows: 9 with a currency that is no code of 2 to 12 capitals and digits; the first is seq 6",
    ),
    "timestamp": (
        "UPDATE transactions SET timestamp_ms = -99999999999999 WHERE seq = 5",
        "rows: 1 with a timestamp out of bounds; the first is seq 5",
    ),
    "user": (
        "UPDATE transactions SET user_id = '' WHERE seq = 5",
        "rows: 1 with a user_id that is empty or too long; the first is seq 5",
    ),
    "type": (
        "UPDATE transactions SET transaction_type = 'cash' WHERE seq = 5",
        "rows: 1 with a transaction_type that is none; the first is seq 5",
    ),
    "metadata": (
        "UPDATE transactions SET metadata = '[]' WHERE seq = 5",
        "rows: 1 with metadata that is no JSON object; the first is seq 5",
    ),
    "no JSON": (
        "UPDATE transactions SET metadata = '{' WHERE seq = 5",
        "rows: 1 with metadata that is no JSON object; the first is seq 5",
    ),
    "epoch to come": (
        "UPDATE transactions SET epoch = 9 WHERE seq = 5",
        "rows: 1 with a deletion epoch that has not come yet; the first is seq 5",
    ),
    "epoch gone by": (
        "UPDATE transactions SET epoch = -1 WHERE seq = 5",
        "rows: 1 with a deletion epoch that does not fit its number; the first is seq 5",
    ),
    "latest": (
        "UPDATE transactions SET latest_ms = 1 WHERE seq = 5",
        "rows: 1 with a latest_ms that is not the latest",
    ),
    "terms": (
        "UPDATE transactions SET terms = 's=completed' WHERE seq = 5",
        "rows: 1 are found by other words than their metadata has; the first is seq 5",
    ),
    "record": (
        "UPDATE idempotency SET packed = x'0178' WHERE seq = 1",
        "idempotency: 1 of 14 records cannot be read",
    ),
    "rows that answers name": (
        "DELETE FROM transactions WHERE seq >= 10",
        "idempotency: remembered answers name 5 transactions that are not there, "
        "and none was ever deleted",
    ),
}
BROKEN_INDEX = {
    "row without entry": (
        "DELETE FROM entry WHERE seq = 5",
        "index: 1 rows have no entry",
    ),
    "entry without row": (
        "INSERT INTO entry VALUES (99, 99)",
        "index: 1 entries have no row",
    ),
    "time": (
        "UPDATE entry SET position = 5 WHERE seq = 5",
        "index: 1 entries stand at another time than their rows",
    ),
    "id": (
        "UPDATE place SET position = (SELECT position FROM entry WHERE seq = 6) "
        "WHERE position = (SELECT position FROM entry WHERE seq = 5)",
        "index: 1 ids lead to another row than their own",
    ),
    "no id": (
        "DELETE FROM place WHERE position = (SELECT position FROM entry WHERE seq = 5)",
        "index: 1 entries have no id",
    ),
    "not searchable": (
        "DELETE FROM search WHERE rowid = (SELECT position FROM entry WHERE seq = 5)",
        "index: 1 entries cannot be searched for",
    ),
    "other words": (
        "DELETE FROM search WHERE rowid = (SELECT position FROM entry WHERE seq = 5)",
        "INSERT INTO search (rowid, terms) SELECT position, 'c=USD' FROM entry WHERE seq = 5",
        "index: 5 of 6 rows are found by c=EUR",
    ),
}


@pytest.mark.parametrize(("statement", "finding"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_named(copied: Path, statement: str, finding: str) -> None:
    alter(copied, statement)
    findings, _ = examine(copied)
    assert any(line.startswith(finding) for line in findings), findings


@pytest.mark.parametrize("case", BROKEN_INDEX.values(), ids=BROKEN_INDEX)
def test_what_is_broken_of_the_index_is_named(copied: Path, case: tuple[str, ...]) -> None:
    *statements, finding = case
    alter(copied.with_name("ledger.db-feed"), *statements)
    findings, _ = examine(copied)
    assert any(line.startswith(finding) for line in findings), findings


def test_a_page_that_is_damaged_is_named_and_ends_with_status_1(copied: Path) -> None:
    connection = apsw.Connection(str(copied))
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'transactions'")
    ((size,),) = connection.execute("PRAGMA page_size")
    connection.close()
    with copied.open("r+b") as file:
        file.seek((page - 1) * size + 8)
        file.write(b"\xff" * 200)
    told = run(DATABASE_URL=sqlite_url(copied))
    assert told.returncode == 1, told
    assert "differs: integrity: " in told.stdout
    assert told.stdout.count("\n") > 1


def test_rows_that_a_start_would_overlook_show_in_its_statistics(copied: Path) -> None:
    alter(copied, "UPDATE transactions SET latest_ms = 1 WHERE seq = 14")
    told = run(DATABASE_URL=sqlite_url(copied))
    assert told.returncode == 1
    assert "differs: statistics: a start would count other figures of EUR than its" in told.stdout


def test_after_a_deletion_what_answers_name_may_be_gone(copied: Path) -> None:
    alter(copied, "UPDATE ledger SET epoch = 1, cleared_seq = 14")
    findings, notes = examine(copied)
    assert findings == []
    assert len(notes) == 2
    assert notes[0].startswith("idempotency: remembered answers name 14 transactions")
    alter(copied, "DELETE FROM transactions")
    assert examine(copied) == (findings, notes)


def test_without_an_index_there_is_nothing_wrong(copied: Path) -> None:
    for file in copied.parent.glob("ledger.db-feed*"):
        file.unlink()
    assert examine(copied) == ([], ["index: there is none; a start makes it"])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "there is no database at"), (b"no database" * 100, "cannot read .*not a database")],
)
def test_what_cannot_be_read_ends_with_status_2(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "ledger.db"
    if content is not None:
        path.write_bytes(content)
    told = run(DATABASE_URL=sqlite_url(path))
    assert (told.returncode, told.stdout) == (2, "")
    assert re.match(f"millrace: {complaint}.*\n$", told.stderr)


def test_beside_a_service_under_load_statistics_are_held_against_its_rows(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "ledger.db")
    with ServiceProcess({"DATABASE_URL": url, "WINDOW_SECONDS": "3600"}) as service:
        address = service.serving()
        load = Load(address, connections=2)

        async def verify_under_load() -> subprocess.CompletedProcess[str]:
            async with load.under_way():
                await load.reach(50)
                told = await asyncio.to_thread(run, "--url", address, DATABASE_URL=url)
                await load.reach(len(load.acknowledged) + 50)
                service.terminate()
            return told

        told = asyncio.run(verify_under_load())
        assert service.exit_status() == 0
    assert told.returncode == 0, told
    assert told.stdout.endswith("all right\n")
    assert load.codes.keys() <= {"not_ready"}
    told = run("--url", address, DATABASE_URL=url)
    assert told.returncode == 2
    assert told.stderr == "millrace: connection refused\n"


def test_a_service_that_answers_other_figures_than_its_rows_have_is_found_out(copied: Path) -> None:
    with ServiceProcess({"DATABASE_URL": sqlite_url(copied), "WINDOW_SECONDS": "3600"}) as service:
        address = service.serving()
        alter(copied, "UPDATE transactions SET amount_units = amount_units + 1 WHERE seq = 2")
        told = run("--url", address, DATABASE_URL=sqlite_url(copied))
    assert told.returncode == 1
    assert (
        "differs: statistics of 3600 s: USD sum is 38.50000001 at the service, 38.50000002 by its rows\n"
        in told.stdout
    )
    assert "EUR" not in told.stdout.partition("differs:")[2]


@needs_postgres
def test_a_database_of_postgresql_is_verified_beside_its_service() -> None:
    url = new_database_url()
    fill({"DATABASE_URL": url})
    with ServiceProcess({"DATABASE_URL": url, "WINDOW_SECONDS": "3600"}) as service:
        address = service.serving()
        told = run("--url", address, DATABASE_URL=url)
        assert (told.returncode, told.stderr) == (0, ""), told
        assert told.stdout.endswith("all right\n")
        assert f"{ROWS + 2} transactions, {ROWS + 2} remembered answers\n" in told.stdout
        ask(url, "UPDATE transactions SET currency = 'eur' WHERE amount_units = 25000000")
        ask(url, "UPDATE transactions SET node = 99 WHERE amount_units = 125000000")
        ask(url, "DELETE FROM transactions WHERE amount_units = 1")
        told = run("--url", address, DATABASE_URL=url)
    assert told.returncode == 1
    for finding in (
        "rows: 1 with a currency that is no code",
        "rows: 1 with a node that does not exist",
        "idempotency: remembered answers name 1 transactions that are not there",
        "statistics of 3600 s: USD count is 8 at the service, 7 by its rows",
    ):
        assert f"differs: {finding}" in told.stdout, told.stdout
    ask(url, "UPDATE migrations SET checksum = 'x'")
    told = run(DATABASE_URL=url)
    assert told.returncode == 2
