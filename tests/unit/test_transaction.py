"""From bytes to a transaction: what is taken, what is refused, and by which of the two refusals."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.money import UNITS_MAX
from app.core.timestamp import TIMESTAMP_MS_MAX, TIMESTAMP_MS_MIN
from app.core.transaction import Invalid, Malformed, Transaction, TransactionDecoder

CURRENCIES = frozenset({"USD", "EUR", "BTC"})
DECODER = TransactionDecoder(currencies=CURRENCIES, default_currency="EUR", allow_negative=False)
WITH_REFUNDS = TransactionDecoder(currencies=CURRENCIES, default_currency="EUR", allow_negative=True)
POINTERS = {"/amount", "/timestamp", "/currency", "/user_id"}

DEEP = b"[" * 100_000 + b"]" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000 + b"1" + b"}" * 100_000

# A right body with something of everything, for bytes to be changed in.
SAMPLE = (
    b'{"amount":"-1.5e3", "timestamp":-0.5E+1,"user_id":"\xc3\xa9","currency":"EUR","x":[{},true]}\n'
)

twin = settings(derandomize=False, print_blob=True, deadline=None, max_examples=400)


def body(**fields: object) -> bytes:
    return json.dumps({"amount": 1, "timestamp": 0, **fields}).encode()


def with_member(member: bytes) -> bytes:
    """A right body with one more member, as raw bytes."""
    return b'{"amount":1,"timestamp":0,' + member + b"}"


def pointers(refused: bytes) -> list[str]:
    """The fields that are named as wrong, in some order."""
    with pytest.raises(Invalid) as raised:
        DECODER.decode(refused)
    return sorted(error.pointer for error in raised.value.errors)


def verdict(decoder: TransactionDecoder, given_body: bytes) -> Transaction | Malformed | Invalid:
    """What becomes of a body; any other exception is the test's failure."""
    try:
        return decoder.decode(given_body)
    except (Malformed, Invalid) as refusal:
        return refusal


def is_json_object(text: bytes) -> bool:
    try:
        # No integer is called NaN or Infinity, which JSON does not have and Python reads.
        return isinstance(json.loads(text.decode(), parse_constant=int), dict)
    except ValueError:
        return False


def test_every_field_arrives_as_stated() -> None:
    stated = body(amount="12.5", timestamp="2026-01-01T00:00:00Z", currency="BTC", user_id="ann")
    assert DECODER.decode(stated) == Transaction(1_250_000_000, 1_767_225_600_000, "BTC", "ann")


def test_without_currency_and_user_the_defaults_hold() -> None:
    assert DECODER.decode(body()) == Transaction(100_000_000, 0, "EUR", None)


def test_null_in_an_optional_field_is_as_if_it_were_absent() -> None:
    assert DECODER.decode(body(currency=None, user_id=None)) == DECODER.decode(body())


@pytest.mark.parametrize("value", [None, 0, "", [], {"amount": -1}, "\U0001f600", 1e300, "\x00"])
def test_a_field_of_another_name_is_ignored(value: object) -> None:
    assert DECODER.decode(body(x=value, Amount=value, metadata=value)) == DECODER.decode(body())


def test_an_escape_in_a_name_counts_as_what_it_spells() -> None:
    assert DECODER.decode(rb'{"\u0061mount":2,"timestamp":0}').amount_units == 200_000_000


@pytest.mark.parametrize("amount", ["-1", -1, -1e-8, "-92233720368.54775807"])
def test_a_negative_amount_is_refused_unless_refunds_are_allowed(amount: str | float) -> None:
    assert pointers(body(amount=amount)) == ["/amount"]
    assert WITH_REFUNDS.decode(body(amount=amount)).amount_units < 0


@pytest.mark.parametrize("amount", [0, "0", "0.00", "-0", "0e5"])
def test_an_amount_of_zero_is_fine(amount: int | str) -> None:
    assert DECODER.decode(body(amount=amount)).amount_units == 0


@pytest.mark.parametrize("amount", [None, True, [], {}, "", "NaN", "1_000", " 1", "5.", "1e-9", "1\n"])
def test_a_wrong_amount_is_named(amount: object) -> None:
    assert pointers(body(amount=amount)) == ["/amount"]


@pytest.mark.parametrize("timestamp", [None, False, [], {}, "", "0", "1767225600", "2026-02-30", 1e300])
def test_a_wrong_timestamp_is_named(timestamp: object) -> None:
    assert pointers(body(timestamp=timestamp)) == ["/timestamp"]


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
def test_a_listed_currency_is_taken(currency: str) -> None:
    assert DECODER.decode(body(currency=currency)).currency == currency


@pytest.mark.parametrize("currency", ["", "GBP", "eur", " EUR", "EUR\n", "EU", 978, True, [], ["EUR"]])
def test_any_other_currency_is_named_as_wrong(currency: object) -> None:
    assert pointers(body(currency=currency)) == ["/currency"]


@pytest.mark.parametrize("number", [b"0", b"-7", b"18446744073709551616", b"9" * 128, b"-" + b"9" * 127])
def test_an_integer_user_is_kept_as_its_text(number: bytes) -> None:
    assert DECODER.decode(with_member(b'"user_id":' + number)).user_id == number.decode()


@pytest.mark.parametrize("number", [b"9" * 129, b"-" + b"9" * 128, b"9" * 5000], ids=len)
def test_an_integer_user_of_more_than_128_characters_is_wrong(number: bytes) -> None:
    assert pointers(with_member(b'"user_id":' + number)) == ["/user_id"]


@pytest.mark.parametrize("user_id", ["", 1.5, True, False, [], {}, ["ann"]])
def test_a_user_that_is_empty_or_neither_string_nor_integer_is_wrong(user_id: object) -> None:
    assert pointers(body(user_id=user_id)) == ["/user_id"]


@pytest.mark.parametrize("character", ["a", " ", "\u00e9", "\U0001f600", "\u2028"])
def test_a_user_may_have_128_characters_whatever_their_bytes_and_not_129(character: str) -> None:
    assert DECODER.decode(body(user_id=character * 128)).user_id == character * 128
    assert pointers(body(user_id=character * 129)) == ["/user_id"]


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)], ids=hex)
def test_a_control_character_in_a_user_is_wrong_wherever_it_stands(code: int) -> None:
    for user_id in (chr(code), f"{chr(code)}ann", f"an{chr(code)}n", f"ann{chr(code)}"):
        assert pointers(body(user_id=user_id)) == ["/user_id"]


@twin
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128))
def test_any_text_without_control_characters_is_a_user_and_stays_as_it_is(user_id: str) -> None:
    assert DECODER.decode(body(user_id=user_id)).user_id == user_id


def test_what_is_missing_is_named_field_by_field() -> None:
    assert pointers(b"{}") == ["/amount", "/timestamp"]


def test_every_wrong_field_is_named_at_once() -> None:
    wrong = body(amount="NaN", timestamp=True, currency="eur", user_id="\n")
    assert pointers(wrong) == ["/amount", "/currency", "/timestamp", "/user_id"]


def test_what_is_right_beside_what_is_wrong_is_not_named() -> None:
    assert pointers(body(amount=-1, currency=5, user_id="ann")) == ["/amount", "/currency"]


@pytest.mark.parametrize(
    ("field", "first", "last"),
    [
        *((b"amount", b"9", b"1"), (b"amount", b"-1", b"1"), (b"amount", b"[]", b"1")),
        *((b"timestamp", b"5", b"0"), (b"timestamp", b'"never"', b"0"), (b"timestamp", b"{}", b"0")),
        *((b"currency", b"5", b'"EUR"'), (b"currency", b'"x"', b"null")),
        *((b"user_id", b'"ann"', b"null"), (b"user_id", b"[{}]", b"null"), (b"user_id", b'""', b"null")),
    ],
)
def test_of_a_repeated_name_the_last_wins_also_over_one_of_a_wrong_type(
    field: bytes, first: bytes, last: bytes
) -> None:
    repeated = with_member(b'"%s":%s,"%s":%s' % (field, first, field, last))
    assert DECODER.decode(repeated) == DECODER.decode(body())


def test_of_a_repeated_name_the_last_wins_also_where_it_is_the_wrong_one() -> None:
    assert pointers(with_member(b'"currency":"EUR","currency":5')) == ["/currency"]


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
@pytest.mark.parametrize("place", [b'"x":"%s"', b'"%s":1', b'"x":[{"y":"%s"}]'])
def test_what_is_not_utf_8_is_malformed_also_in_an_ignored_field(text: bytes, place: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(with_member(place % text))


@pytest.mark.parametrize("field", [b"amount", b"timestamp", b"currency", b"user_id"])
def test_a_field_of_ours_that_is_not_utf_8_is_malformed(field: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(with_member(b'"%s":"1\xff"' % field))


@pytest.mark.parametrize("field", ["amount", "timestamp", "currency", "user_id"])
def test_an_escaped_half_of_a_surrogate_pair_is_refused(field: str) -> None:
    assert not isinstance(verdict(DECODER, body(**{field: "\ud800"})), Transaction)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_body_in_another_encoding_or_with_a_byte_order_mark_is_malformed(encoding: str) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(body().decode().encode(encoding))


@pytest.mark.parametrize("deep", [DEEP, DEEP_OBJECT, DEEP[:100_000]], ids=["[]", "{}", "["])
@pytest.mark.parametrize("beside", [b"", b',"amount":-1', b',"currency":5,"user_id":[]'])
def test_deep_nesting_in_an_ignored_field_is_malformed_also_beside_a_wrong_one(
    deep: bytes, beside: bytes
) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(with_member(b'"x":' + deep + beside))


@pytest.mark.parametrize("field", [b"amount", b"timestamp", b"currency", b"user_id"])
def test_deep_nesting_in_a_field_of_ours_is_refused(field: bytes) -> None:
    assert not isinstance(verdict(DECODER, with_member(b'"%s":%s' % (field, DEEP))), Transaction)


@pytest.mark.parametrize("value", [b"null", b"true", b"1", b'"Hello"', b"[]", b"[{}]", DEEP], ids=len)
def test_a_top_level_that_is_no_object_is_malformed(value: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(value)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" ", b"\x00", b"{", b"}", b"{]", b"{amount:1}", b"{'amount':1}", b'{"amount"}', b"nul"),
        *(body() + b"x", body() + b"\x00", body() + body(), body() + b",", body()[:-1], b"x" + body()),
        *(b"\x0b" + body(), b"//\n" + body(), b"NaN", b'{"amount":}'),
    ],
)
def test_what_is_no_json_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(text)


@pytest.mark.parametrize("field", [b"x", b"amount", b"timestamp", b"user_id"])
@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"[1,]", b"NaN", b"-Infinity", b"01", b"1.", b"+1", b".5", b"1_0", b"tru", b"-", b"1e"),
        *(b'"a\nb"', rb'"\x41"', rb'"\u12"', b'"a', b"'a'", b"0x10", b"\xd9\xa1", b"1 2"),
    ],
)
def test_a_value_that_is_no_json_is_malformed_in_whatever_field(field: bytes, value: bytes) -> None:
    with pytest.raises(Malformed):
        DECODER.decode(with_member(b'"%s":%s' % (field, value)))


@st.composite
def changed_samples(draw: st.DrawFn) -> bytes:
    """The sample with a few bytes replaced, removed or put in."""
    sample = bytearray(SAMPLE)
    piece = st.sampled_from([b"", b'"', b",", b"]", b"{", b"0", b"-", b"\n"]) | st.binary(max_size=2)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(sample)))
        sample[start : start + draw(st.integers(0, 2))] = draw(piece)
    return bytes(sample)


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
amounts = st.integers(-1, 10**11) | st.decimals(-(10**11), 10**11, places=8).map(str) | json_values
timestamps = st.integers(-(10**15), 10**15) | st.datetimes().map(str) | json_values
user_ids = st.text() | json_values
currencies = st.sampled_from(sorted(CURRENCIES)) | json_values
nearly_right = {"amount": amounts, "timestamp": timestamps, "currency": currencies, "user_id": user_ids}
json_objects = st.fixed_dictionaries({}, optional={**nearly_right, "x": json_values})


@twin
@given(st.binary() | changed_samples() | (json_values | json_objects).map(json.dumps).map(str.encode))
def test_any_bytes_are_a_transaction_or_malformed_or_invalid_with_a_field_named(text: bytes) -> None:
    for decoder in (DECODER, WITH_REFUNDS):
        found = verdict(decoder, text)
        if isinstance(found, Invalid):
            assert found.errors
            assert {error.pointer for error in found.errors} <= POINTERS


@twin
@given(changed_samples() | json_objects.map(json.dumps).map(str.encode))
def test_what_is_taken_is_within_every_bound_of_the_contract(text: bytes) -> None:
    found = verdict(DECODER, text)
    if isinstance(found, Transaction):
        assert 0 <= found.amount_units <= UNITS_MAX
        assert TIMESTAMP_MS_MIN <= found.timestamp_ms <= TIMESTAMP_MS_MAX
        assert found.currency in CURRENCIES
        assert found.user_id is None or 1 <= len(found.user_id) <= 128


@twin
@given(changed_samples() | json_objects.map(json.dumps).map(str.encode))
def test_malformed_is_exactly_what_python_does_not_read_as_a_json_object(text: bytes) -> None:
    assert isinstance(verdict(DECODER, text), Malformed) is not is_json_object(text)
