"""How fast the feed answers: a million synthetic rows in a store, and questions of every kind to it.

    python -m loadtest.questions [--rows N] [--rounds N] [--database-url URL] [--json FILE]

Without a URL it fills a SQLite file in a temporary directory; with one, a database that has to be empty
(of PostgreSQL: migrated; it is vacuumed and analyzed once it is full, as autovacuum would soon do).
Each question is asked for its first page, for the page behind a tenth of all rows (by cursor, and by its
number) and for how many rows it finds. Printed are the medians and the worst of the rounds, under each
question the statement that answers it with the engine's plan (of PostgreSQL, for each way it is asked),
and at the end which questions would scan the table from end to end.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from tqdm import tqdm

from app.commands.synthetic import Span, synthetic_transactions
from app.core.activity import Product, Status, TransactionType, texts
from app.core.currency import ISO_4217
from app.core.identifier import IdentifierSource
from app.core.question import Place, Portion, Question
from app.core.transaction import Row
from app.core.words import words
from app.environment import read_settings
from app.main import build_store
from app.store.base import Store
from loadtest.plans import explain, settle

PAGE_ROWS: Final = 20
BATCH_ROWS: Final = 5000
USERS: Final = 10_000
SPAN: Final = Span(1_764_731_045_678, 1_767_323_045_678)
OLD_MS: Final = SPAN.from_ms + (SPAN.to_ms - SPAN.from_ms) // 10
# A word of a tenth of the rows stands in none of the synthetic ones, so it is given to some.
COMMON_WORD: Final = "quarterly"
# And a word that stands in the oldest tenth alone.
OLD_WORD: Final = "bygone"


class Timing(msgspec.Struct):
    """Milliseconds: the median of some rounds, and the worst of them."""

    median_ms: float
    worst_ms: float


class Answered(msgspec.Struct):
    """What one question took."""

    rows: int
    first: Timing
    deep: Timing
    numbered: Timing
    total: Timing
    plan: list[str]


def main() -> int:
    """Fill, ask, and print."""
    parser = argparse.ArgumentParser(
        "python -m loadtest.questions", description="How fast the feed answers"
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        url = options.database_url or f"sqlite:///{directory}/ledger.db"
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            answered = runner.run(measure(url, options.rows, options.rounds))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(answered)))
    return 0


async def measure(url: str, rows: int, rounds: int) -> dict[str, Answered]:
    """Fill a store and ask it everything, printing as it goes."""
    store = build_store(read_settings({"DATABASE_URL": url}))
    await store.open()
    try:
        counts = await fill(store, rows)
        await settle(url)
        deep = await place_behind(store, rows // 10)
        print(f"{rows} rows, {PAGE_ROWS} a page, {rounds} rounds; milliseconds: median (worst)")
        columns = ("first page", "deep, cursor", "deep, number", "total")
        print(f"{'':34}{'finds':>9}" + "".join(f"{column:>18}" for column in columns))
        answered = {}
        for name, question in questions(counts, rows).items():
            one = answered[name] = await ask(store, question, deep, rows // 10, rounds)
            one.plan = await explain(url, question, portions(deep, rows // 10))
            timings = (one.first, one.deep, one.numbered, one.total)
            shown = "".join(f"{f'{each.median_ms:.2f} ({each.worst_ms:.2f})':>18}" for each in timings)
            print(f"{name:34}{one.rows:>9}{shown}")
            for line in one.plan:
                print(f"      {line}")
        scanning = [name for name, one in answered.items() if "Seq Scan" in " ".join(one.plan)]
        print(f"scanning the table from end to end: {', '.join(scanning) or 'none'}")
        return answered
    finally:
        await store.close()


async def fill(store: Store, rows: int) -> Counter[str]:
    """Append synthetic rows; in how many of them each word stands."""
    identifiers = IdentifierSource(1)
    counts: Counter[str] = Counter()
    made = synthetic_transactions(rows, USERS, SPAN, 1, ISO_4217)
    with tqdm(total=rows, unit="row", unit_scale=True, desc="filling") as bar:
        number = 0
        while batch := [transaction for _, transaction in zip(range(BATCH_ROWS), made, strict=False)]:
            kept = []
            for transaction in batch:
                number += 1
                details = transaction.details
                assert details is not None
                metadata = msgspec.json.decode(details.metadata)
                is_old = transaction.timestamp_ms < OLD_MS
                if number % 10 == 0 or is_old:
                    kept_words = [COMMON_WORD] * (number % 10 == 0) + [OLD_WORD] * is_old
                    metadata["description"] = f"{' '.join(kept_words)} statement {number}"
                    details = msgspec.structs.replace(
                        details, metadata=msgspec.json.encode(metadata, order="sorted")
                    )
                    transaction = msgspec.structs.replace(transaction, details=details)
                counts.update({word for text in texts(metadata) for word in words(text)})
                kept.append(Row(identifiers.next(SPAN.to_ms), transaction))
            await store.append(kept)
            bar.update(len(kept))
    started = time.perf_counter()
    await store.page(Question(), Portion(1))
    print(f"the feed had caught up {time.perf_counter() - started:.1f} s later")
    return counts


def questions(counts: Counter[str], rows: int) -> Mapping[str, Question]:
    """A question for each filter, and for what is asked for together."""
    rare = next(word for word, count in counts.items() if count == 1)
    middling = min(counts, key=lambda word: abs(counts[word] - rows // 1000))
    day_ms = 86_400_000
    return {
        "everything": Question(),
        "user": Question(user_id="user-77"),
        "transaction_type": Question(transaction_type=TransactionType.CRYPTO),
        "product": Question(product=Product.EARNINGS),
        "status=failed": Question(status=Status.FAILED),
        "status=completed": Question(status=Status.COMPLETED),
        "currency=EUR": Question(currency="EUR"),
        "currency=CZK": Question(currency="CZK"),
        "a day": Question(from_ms=SPAN.to_ms - 10 * day_ms, to_ms=SPAN.to_ms - 9 * day_ms),
        "min_amount=1000": Question(min_units=1000 * 10**8),
        "max_amount=1": Question(max_units=10**8),
        "min_amount=10^9": Question(min_units=10**9 * 10**8),
        "merchant_name": Question(metadata={"merchant_name": "Carrefour"}),
        "card_last_four": Question(metadata={"card_last_four": "0077"}),
        "direction": Question(metadata={"direction": "sent"}),
        f"a word in a tenth: {COMMON_WORD}": Question(words=(COMMON_WORD,)),
        f"in the oldest tenth: {OLD_WORD}": Question(words=(OLD_WORD,)),
        f"a word in a thousandth: {middling}": Question(words=(middling,)),
        f"a word in one: {rare}": Question(words=(rare,)),
        "no such word": Question(words=("nowhere",)),
        "user, word in a tenth": Question(user_id="user-77", words=(COMMON_WORD,)),
        "user, type, status": Question(
            user_id="user-77", transaction_type=TransactionType.CARD, status=Status.PENDING
        ),
        "type, product, status": Question(
            transaction_type=TransactionType.CARD, product=Product.CARD, status=Status.FAILED
        ),
        "type, product, status: none": Question(
            transaction_type=TransactionType.CARD, product=Product.CRYPTO, status=Status.FAILED
        ),
        "type, product: none": Question(transaction_type=TransactionType.CARD, product=Product.CRYPTO),
        "two words": Question(words=(COMMON_WORD, middling)),
    }


async def place_behind(store: Store, offset: int) -> Place:
    """The place of the row behind so many others."""
    page = await store.page(Question(), Portion(1, offset=offset))
    (row,) = page.rows
    return Place(row.transaction.timestamp_ms, row.id)


def portions(deep: Place, offset: int) -> list[Portion]:
    """The ways in which each question is asked."""
    return [
        Portion(PAGE_ROWS),
        Portion(PAGE_ROWS, before=deep),
        Portion(PAGE_ROWS, offset=offset),
    ]


async def ask(store: Store, question: Question, deep: Place, offset: int, rounds: int) -> Answered:
    """Ask one question in every way."""

    async def timed(portion: Portion) -> Timing:
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            await store.page(question, portion)
            times.append((time.perf_counter() - started) * 1000)
        return Timing(statistics.median(times), max(times))

    total = (await store.page(question, Portion(1, with_total=True))).total
    assert total is not None
    return Answered(
        total,
        await timed(Portion(PAGE_ROWS)),
        await timed(Portion(PAGE_ROWS, before=deep)),
        await timed(Portion(PAGE_ROWS, offset=min(offset, max(total - PAGE_ROWS, 0)))),
        await timed(Portion(1, with_total=True)),
        [],
    )


if __name__ == "__main__":
    sys.exit(main())
