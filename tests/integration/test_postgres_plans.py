"""Questions to PostgreSQL: each has an index that answers it, and what is skipped is not read."""

import asyncio

import pytest

from app.core.activity import Product, Status, TransactionType
from app.core.question import Place, Portion, Question
from app.store.postgres_figures import USER_FIGURES
from loadtest.plans import explain, settle
from tests.support.postgres import ask, needs_postgres, new_database_url

pytestmark = needs_postgres

QUESTIONS = [
    Question(),
    Question(user_id="u-1"),
    Question(currency="EUR"),
    Question(from_ms=1, to_ms=2),
    Question(transaction_type=TransactionType.CARD),
    Question(product=Product.CARD),
    Question(status=Status.FAILED),
    Question(status=Status.COMPLETED),
    Question(min_units=1),
    Question(max_units=1),
    Question(words=("word",)),
    Question(metadata={"merchant_name": "Café"}),
    Question(user_id="u-1", words=("word",), min_units=1),
]
TOGETHER = [
    Question(transaction_type=TransactionType.CARD, product=Product.CARD),
    Question(transaction_type=TransactionType.CARD, status=Status.FAILED),
    Question(product=Product.CRYPTO, status=Status.PENDING),
    Question(transaction_type=TransactionType.P2P, product=Product.CARD, status=Status.FAILED),
]


@pytest.fixture(scope="module")
def url() -> str:
    """A database whose planner takes an index wherever there is one: it is too small to want any."""
    url = new_database_url()
    ask(
        url,
        "INSERT INTO transactions (id, timestamp_ms, amount_units, currency) "
        "SELECT gen_random_uuid(), n, n, 'EUR' FROM generate_series(1, 2000) n",
    )
    asyncio.run(settle(url))
    return f"{url}?options=-c%20enable_seqscan%3Doff"


def plan(url: str, question: Question, portion: Portion) -> str:
    return "\n".join(asyncio.run(explain(url, question, [portion])))


@pytest.mark.parametrize("question", QUESTIONS + TOGETHER)
def test_no_question_reads_the_table_from_end_to_end(url: str, question: Question) -> None:
    for portion in (Portion(20), Portion(20, before=Place(5, 7)), Portion(20, offset=1000)):
        assert "Seq Scan" not in plan(url, question, portion)


@pytest.mark.parametrize("question", TOGETHER)
def test_what_is_frequent_alone_and_perhaps_not_together_is_looked_up_together(
    url: str, question: Question
) -> None:
    assert "transactions_by_term" in plan(url, question, Portion(20))


@pytest.mark.parametrize("question", [Question(), Question(user_id="u-1"), Question(currency="EUR")])
def test_rows_that_are_skipped_are_not_read(url: str, question: Question) -> None:
    assert "Index Only Scan" in plan(url, question, Portion(20, offset=1000))


def test_figures_of_a_user_are_read_from_the_rows_of_that_user_alone(url: str) -> None:
    values = USER_FIGURES.replace("%s", "'u-1'", 1).replace("%s", "1990")
    plan = "\n".join(line for (line,) in ask(url, f"EXPLAIN (COSTS off) {values}"))
    assert "transactions_by_user" in plan
    assert "Index Cond: ((user_id = 'u-1'::text) AND (timestamp_ms >= 1990))" in plan
