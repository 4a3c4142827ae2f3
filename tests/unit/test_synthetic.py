"""Synthetic transactions: of every kind, plausible, labelled, and the same again for the same seed."""

from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from app.commands.synthetic import Span, synthetic_transactions
from app.core.activity import METADATA_FILTERS, Product, Status, TransactionType
from app.core.currency import ISO_4217
from app.core.metadata import read_metadata
from app.core.money import UNITS_MAX, UNITS_PER_ONE
from app.core.transaction import USER_ID, Transaction

SPAN = Span(1_767_000_000_000, 1_767_323_045_678)
CURRENCIES = ISO_4217 | {"BTC", "ETH"}


def made(number: int = 5000, users: int = 100, seed: int = 1) -> list[Transaction]:
    return list(synthetic_transactions(number, users, SPAN, seed, CURRENCIES))


def metadata(transaction: Transaction) -> dict[str, object]:
    assert transaction.details is not None
    return msgspec.json.decode(transaction.details.metadata, type=dict[str, object])


def test_the_same_seed_makes_the_same_and_another_one_does_not() -> None:
    assert made(300) == made(300)
    assert made(300) != made(300, seed=2)


def test_there_are_all_kinds_of_them() -> None:
    details = [each.details for each in made() if each.details is not None]
    assert {each.transaction_type for each in details} == set(TransactionType)
    assert {each.product for each in details} == set(Product)
    assert {each.status for each in details} == set(Status)
    assert len({each.currency for each in made()}) >= 8
    assert len({each.user_id for each in made()}) > 80
    named = {name for each in made() for name in metadata(each)}
    assert named.issuperset(METADATA_FILTERS)


def test_each_says_that_it_is_synthetic() -> None:
    for each in made():
        assert metadata(each)["synthetic"] is True


def test_each_could_have_been_posted() -> None:
    for each in made():
        assert 0 < each.amount_units <= UNITS_MAX
        assert each.currency in CURRENCIES
        assert each.currency != "JPY" or each.amount_units % UNITS_PER_ONE == 0
        assert USER_ID.fullmatch(each.user_id or "")
        assert each.details is not None
        kept = read_metadata(each.details.metadata, each.details.transaction_type)
        assert each.details.metadata == kept


def test_they_are_spread_over_the_span_oldest_first() -> None:
    times = [each.timestamp_ms for each in made()]
    assert all(before <= after for before, after in pairwise(times))
    tenths = Counter((each - SPAN.from_ms) * 10 // (SPAN.to_ms - SPAN.from_ms) for each in times)
    assert set(tenths) == set(range(10))
    assert all(400 <= number <= 600 for number in tenths.values())


def test_everybody_has_one_card() -> None:
    cards = {(each.user_id, metadata(each).get("card_last_four", "none")) for each in made()}
    assert max(Counter(user for user, card in cards if card != "none").values()) == 1


@pytest.mark.parametrize(("currencies", "found"), [(ISO_4217, set()), (CURRENCIES, {"BTC", "ETH"})])
def test_no_currency_is_used_that_the_service_does_not_take(
    currencies: frozenset[str], found: set[str]
) -> None:
    made = synthetic_transactions(2000, 10, SPAN, 1, currencies)
    assert {each.currency for each in made} - ISO_4217 == found
