"""The feed's index beside a SQLite ledger, as tests fill and read it."""

from pathlib import Path

from app.core.activity import Details, Status
from app.core.question import Page, Portion, Question
from app.core.transaction import Row, Transaction
from app.store.sqlite import SQLiteStore
from tests.support.stores import with_sqlite

NOW_MS = 1_767_323_045_678
ALL = Question()
FIRST = Portion(100)


def row(number: int, timestamp_ms: int = NOW_MS, metadata: bytes | None = None) -> Row:
    details = None if metadata is None else Details(status=Status.PENDING, metadata=metadata)
    transaction = Transaction(number, timestamp_ms, "EUR", f"u-{number % 3}", details)
    return Row((NOW_MS << 80) + number, transaction)


def numbers(page: Page) -> list[int]:
    return [each.transaction.amount_units for each in page.rows]


def index_path(path: Path) -> Path:
    return path.with_name(path.name + "-feed")


def append_and_read(path: Path, rows: list[Row], expected: list[int]) -> None:
    async def body(store: SQLiteStore) -> None:
        await store.append(rows)
        assert numbers(await store.page(ALL, FIRST)) == expected

    with_sqlite(path, body)
