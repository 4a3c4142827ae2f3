"""One suite over every store's feed: it answers what the plain definition does, row for row."""

import os
import random
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from app.core.activity import METADATA_FILTERS, Details, Product, Status, TransactionType, texts
from app.core.money import UNITS_MAX
from app.core.question import Page, Place, Portion, Question, matches, place
from app.core.transaction import Row, Transaction
from app.core.words import words
from app.store.base import Store
from tests.support.stores import DURABLE_STORES, STORES, Opener, with_store

Value = TypeVar("Value")

QUESTIONS = int(os.environ.get("MILLRACE_FEED_QUESTIONS", "60"))
SEED = int(os.environ.get("MILLRACE_FEED_SEED", "20260102"))

NOW_MS = 1_767_323_045_678
ROWS = 400

# Few, so that they meet often; with all that a parser or a database might stumble over.
TEXTS = (
    "Coffee & Cake",
    "coffee | !tea <-> 'tea':*",
    "O'Neil \\ \"Sons\" \\' ; DROP TABLE transactions; --",
    "Ünïcode ÉCLAIR straße",
    "東京タワー カフェ",
    "😀 and 🏳️‍🌈",
    "nul \0 nul",
    "\\u0000 is no NUL",
    "s=failed p=card _ __ a_b %s %(a)s $1",
    "",
    " \t\n",
    "x" * 300,
)
NUMBERS = (
    0,
    -1,
    1.5,
    -0.0,
    1e22,
    1e-7,
    12.0,
    2**53 + 1,
    2**63,
    2**64 - 1,
    123456789012345678901234567890,
)


def cut(found: list[Row], portion: Portion) -> Page:
    """The wanted part of rows, by sorting them."""
    rows = sorted(found, key=place, reverse=True)
    behind = [row for row in rows if portion.before is None or place(row) < portion.before]
    wanted = behind[portion.offset : portion.offset + portion.limit + 1]
    total = len(rows) if portion.with_total else None
    return Page(wanted[: portion.limit], len(wanted) > portion.limit, total)


def metadata_of(chance: random.Random) -> bytes:
    metadata: dict[str, Any] = {
        name: chance.choice(TEXTS) for name in METADATA_FILTERS if chance.random() < 0.3
    }
    if chance.random() < 0.3:
        metadata[chance.choice(("a", "zz", "B", "é", "", "\0"))] = chance.choice(NUMBERS)
    if chance.random() < 0.3:
        metadata["nested"] = {
            "list": [chance.choice(TEXTS), None, True, [{"deep": chance.choice(TEXTS)}]]
        }
    if chance.random() < 0.1:
        metadata["merchant_name"] = chance.choice((7, None, ["coffee"]))
    return msgspec.json.encode(metadata, order="sorted")


def row_of(chance: random.Random, number: int) -> Row:
    details = None
    if chance.random() < 0.6:
        details = Details(
            chance.choice((None, *TransactionType)),
            chance.choice((None, *Product)),
            chance.choice(tuple(Status)),
            metadata_of(chance),
        )
    user_id = chance.choice((None, "u-1", "u-2", "u'3\\", "é😀"))
    amount_units = chance.choice((0, 1, -1, UNITS_MAX, -UNITS_MAX, chance.randrange(1000)))
    # Times meet, too: then the id decides.
    timestamp_ms = NOW_MS - chance.randrange(50)
    transaction = Transaction(
        amount_units, timestamp_ms, chance.choice(("EUR", "USD")), user_id, details
    )
    return Row((NOW_MS << 80) + number, transaction)


def question_of(chance: random.Random, rows: list[Row]) -> Question:
    """Asks for some of what one of the rows is, so that most questions find something."""
    row = chance.choice(rows)
    fact, details = row.transaction, row.transaction.details or Details()
    metadata = msgspec.json.decode(details.metadata)
    found = [word for text in texts(metadata) for word in words(text)]

    def maybe(value: Value) -> Value | None:
        return value if chance.random() < 0.2 else None

    filters = {name: value for name in METADATA_FILTERS if isinstance(value := metadata.get(name), str)}
    return Question(
        user_id=maybe(fact.user_id),
        transaction_type=maybe(details.transaction_type),
        product=maybe(details.product),
        status=maybe(details.status),
        currency=maybe(fact.currency),
        from_ms=maybe(fact.timestamp_ms - chance.randrange(10)),
        to_ms=maybe(fact.timestamp_ms + chance.randrange(10)),
        min_units=maybe(fact.amount_units),
        max_units=maybe(fact.amount_units),
        metadata={name: value for name, value in filters.items() if chance.random() < 0.3},
        words=tuple(chance.sample(found, min(len(found), chance.choice((0, 0, 1, 2))))),
    )


async def rows_in_pages(store: Store, question: Question, limit: int, *, by_offset: bool) -> list[Row]:
    """The whole answer, one portion after another."""
    rows: list[Row] = []
    before: Place | None = None
    while True:
        page = await store.page(
            question, Portion(limit, offset=len(rows)) if by_offset else Portion(limit, before)
        )
        assert len(page.rows) <= limit
        rows += page.rows
        if not page.has_more:
            return rows
        before = place(rows[-1])


@pytest.mark.parametrize("opener", STORES)
def test_every_question_is_answered_as_the_plain_definition_does(opener: Opener, tmp_path: Path) -> None:
    print(f"MILLRACE_FEED_SEED={SEED}")
    chance = random.Random(SEED)
    rows = [row_of(chance, number) for number in range(ROWS)]

    async def body(store: Store) -> None:
        for start in range(0, ROWS, 50):
            await store.append(rows[start : start + 50])
        sizes = []
        for _ in range(QUESTIONS):
            question = question_of(chance, rows)
            wanted = sorted((row for row in rows if matches(row, question)), key=place, reverse=True)
            sizes.append(len(wanted))
            found = await store.page(question, Portion(ROWS, with_total=True))
            assert found == Page(wanted, has_more=False, total=len(wanted)), question
            limit = chance.randrange(1, 60)
            for by_offset in (False, True):
                assert await rows_in_pages(store, question, limit, by_offset=by_offset) == wanted
            portion = Portion(limit, place(chance.choice(rows)), chance.randrange(5), with_total=True)
            assert await store.page(question, portion) == cut(wanted, portion), (question, portion)
        assert sum(0 < size < ROWS for size in sizes) > QUESTIONS / 2

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_a_row_is_given_back_as_it_was_given(opener: Opener, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    rows = [row_of(chance, number) for number in range(ROWS)]

    async def body(store: Store) -> None:
        await store.append(rows)
        for row in rows:
            assert await store.get(row.id) == row
        assert await store.get(rows[-1].id + 1) is None
        await store.clear()
        assert await store.get(rows[0].id) is None
        assert await store.page(Question(), Portion(1, with_total=True)) == Page([], False, 0)

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", STORES)
def test_rows_are_trimmed_by_when_they_were_kept(opener: Opener, tmp_path: Path) -> None:
    # Kept in another order than they happened in.
    rows = [Row((NOW_MS + n << 80) + n, Transaction(n, NOW_MS - n, "EUR", None)) for n in range(20)]

    async def body(store: Store) -> None:
        await store.append(rows)
        assert await store.trim(NOW_MS + 7, 5)
        assert not await store.trim(NOW_MS + 7, 5)
        assert not await store.trim(0, 5)
        page = await store.page(Question(), Portion(50))
        assert list(page.rows) == rows[7:]

    with_store(opener, tmp_path, body)


@pytest.mark.parametrize("opener", DURABLE_STORES)
def test_a_secret_is_drawn_once(opener: Opener, tmp_path: Path) -> None:
    secrets: list[bytes] = []

    async def body(store: Store) -> None:
        secrets.append(await store.secret())
        await store.clear()
        assert await store.secret() == secrets[0]

    for _ in range(2):
        with_store(opener, tmp_path, body)
    assert len(secrets[0]) == 32
    assert secrets[0] == secrets[1]


@pytest.mark.parametrize("opener", STORES)
def test_a_walk_finds_the_users_transactions_that_were_there_when_it_began(
    opener: Opener, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    rows = [row_of(chance, number) for number in range(ROWS)]
    later = (row_of(chance, number) for number in range(ROWS, 2 * ROWS))
    from_ms, to_ms = NOW_MS - 40, NOW_MS - 10
    wanted = [
        msgspec.structs.replace(row.transaction, details=None)
        for row in rows
        if row.transaction.user_id is not None and from_ms <= row.transaction.timestamp_ms <= to_ms
    ]

    async def body(store: Store) -> None:
        await store.append(rows)
        step = await store.recent(from_ms, to_ms, 7)
        found = list(step.transactions)
        while step.rest is not None:
            await store.append([next(later)])
            step = await store.recent(from_ms, to_ms, 7, step.rest)
            assert len(step.transactions) <= 7
            found += step.transactions
        plain = [msgspec.structs.replace(each, details=None) for each in found]
        assert sorted(plain, key=str) == sorted(wanted, key=str)
        assert list((await store.recent(10**15, 10**16, 7)).transactions) == []

    with_store(opener, tmp_path, body)
