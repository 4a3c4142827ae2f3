"""From bytes to an entry of the feed: as a transaction is read, and a little more."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.activity import Details, Product, Status, TransactionType
from app.core.entry import EntryDecoder
from app.core.transaction import Invalid, Malformed, Transaction, TransactionDecoder

NOW_MS = 1_767_323_045_678
RULES = TransactionDecoder(currencies={"USD", "EUR"}, default_currency="EUR", allow_negative=False)
DECODER = EntryDecoder(RULES)


def decode(**fields: object) -> Transaction:
    return DECODER.decode(json.dumps({"user_id": "ann", "amount": 1, **fields}).encode(), NOW_MS)


def pointers(refused: bytes, default_user_id: str | None = None) -> list[str]:
    with pytest.raises(Invalid) as raised:
        DECODER.decode(refused, NOW_MS, default_user_id)
    return [error.pointer for error in raised.value.errors]


def test_every_field_arrives_as_stated() -> None:
    entry = decode(
        amount="12.5",
        currency="USD",
        transaction_type="top_up",
        product="Crypto",
        status="failed",
        metadata={"b": 1, "a": "ž"},
        timestamp="2026-01-01T00:00:00Z",
    )
    details = Details(TransactionType.TOP_UP, Product.CRYPTO, Status.FAILED, '{"a":"ž","b":1}'.encode())
    assert entry == Transaction(1_250_000_000, 1_767_225_600_000, "USD", "ann", details)


def test_an_entry_that_says_nothing_more_is_a_plain_transaction_of_now() -> None:
    plain = Transaction(100_000_000, NOW_MS, "EUR", "ann")
    assert decode() == plain
    assert decode(status="completed", metadata={}, product=None, timestamp=None) == plain
    assert decode(status="pending").details == Details(status=Status.PENDING)


def test_whose_it_is_must_be_known() -> None:
    assert pointers(b'{"amount":1}') == ["/user_id"]
    assert pointers(b'{"amount":1,"user_id":null}') == ["/user_id"]
    assert pointers(b'{"amount":1,"user_id":""}', "ann") == ["/user_id"]
    assert DECODER.decode(b'{"amount":1}', NOW_MS, "ann").user_id == "ann"
    assert DECODER.decode(b'{"amount":1,"user_id":7}', NOW_MS, "ann").user_id == "7"


def test_every_wrong_field_is_named_and_so_are_those_of_its_metadata() -> None:
    wrong = {
        "amount": -1,
        "transaction_type": "card",
        "product": 1,
        "status": "COMPLETED",
        "metadata": {"card_last_four": "12", "location": 1},
        "timestamp": "0",
    }
    assert pointers(json.dumps(wrong).encode()) == [
        *("/user_id", "/amount", "/product", "/status"),
        *("/metadata/card_last_four", "/metadata/location", "/timestamp"),
    ]
    # Where the type is wrong, no type's own rules hold.
    wrong["transaction_type"] = "Card"
    assert "/metadata/card_last_four" not in pointers(json.dumps(wrong).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'{"a":"\xff"}', b"{" * 9000, b'{"a":"\\ud800"}'])
def test_what_is_no_json_object_in_utf_8_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(body, NOW_MS, "ann")


Fields = st.fixed_dictionaries(
    {"timestamp": st.integers(-(10**14), 10**14) | st.just("2026-01-02")},
    optional={
        "amount": st.integers(-3, 10**12) | st.text("0123456789.-e", max_size=6),
        "currency": st.sampled_from(["EUR", "USD", "eur", "", 1, None]),
        "user_id": st.text(max_size=3) | st.integers() | st.none() | st.booleans(),
        "other": st.text(max_size=3),
    },
)


@given(Fields)
@settings(deadline=None, max_examples=100)
def test_what_it_shares_with_a_transaction_is_read_as_a_transactions(fields: dict[str, object]) -> None:
    body = json.dumps(fields).encode()
    try:
        expected = RULES.decode(body, "ann")
    except Invalid as refused:
        wrong = {error.pointer for error in refused.errors}
        assert set(pointers(body, "ann")) == wrong
    else:
        assert DECODER.decode(body, NOW_MS, "ann") == expected
