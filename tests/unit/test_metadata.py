"""Metadata: what a transaction may say, in what form, and how that is kept."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.activity import METADATA_BYTES_MAX, METADATA_FILTERS, TransactionType
from app.core.metadata import DEPTH_MAX, RULES, Metadata, own_fields, read_metadata
from app.core.transaction import Invalid


def kept(value: object, kind: TransactionType | None = None) -> Any:  # noqa: ANN401 - as json has it
    return json.loads(read_metadata(json.dumps(value).encode(), kind))


def refusal(literal: bytes) -> str:
    with pytest.raises(ValueError, match="must") as raised:
        read_metadata(literal, None)
    return str(raised.value)


def pointers(value: object, kind: TransactionType | None) -> set[str]:
    try:
        kept(value, kind)
    except Invalid as refused:
        return {error.pointer for error in refused.errors}
    return set()


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_every_type_has_its_rules_and_what_is_filtered_by_is_text_in_all() -> None:
    assert set(RULES) == set(TransactionType)
    assert {field.name for field in msgspec.structs.fields(Metadata)} == set(METADATA_FILTERS)
    for kind in (None, *TransactionType):
        for value in (1, True, ["a"], {"a": "b"}, 1.5):
            wrong = dict.fromkeys(METADATA_FILTERS, value)
            assert pointers(wrong, kind) == {f"/metadata/{name}" for name in METADATA_FILTERS}
        assert pointers(dict.fromkeys(METADATA_FILTERS), kind) == set()


def test_every_field_of_a_type_has_a_form_that_is_held_to() -> None:
    for kind in TransactionType:
        for name, told in own_fields(kind).items():
            assert told
            assert pointers({name: 7}, kind) == {f"/metadata/{name}"}, (kind, name)


@pytest.mark.parametrize("digits", ["1234", "0000"])
def test_four_digits_are_the_end_of_a_card(digits: str) -> None:
    for kind in (TransactionType.CARD, TransactionType.TOP_UP, TransactionType.WITHDRAWAL):
        assert kept({"card_last_four": digits}, kind) == {"card_last_four": digits}


@pytest.mark.parametrize("digits", ["", "123", "12345", "12a4", "1234\n", " 1234", "١٢٣٤", 1234])
def test_anything_else_is_not(digits: object) -> None:
    assert pointers({"card_last_four": digits}, TransactionType.CARD) == {"/metadata/card_last_four"}
    # Of a type without cards it is text like any other.
    assert pointers({"card_last_four": str(digits)}, TransactionType.EARNINGS) == set()


@pytest.mark.parametrize(
    ("kind", "name", "right", "wrong"),
    [
        (
            TransactionType.P2P,
            "peer_email",
            ["a@b", "ž@ž.cz"],
            ["a", "a@", "@b", "a b@c", "a@b\n", "a@b@c"],
        ),
        (TransactionType.BILL_PAYMENT, "due_date", ["2026-01-02"], ["2026-1-2", "2026-01-02\n", "soon"]),
        (TransactionType.CRYPTO, "asset", ["BTC"], [["BTC"]]),
    ],
)
def test_a_known_field_has_its_form(
    kind: TransactionType, name: str, right: list[Any], wrong: list[Any]
) -> None:
    for value in right:
        assert kept({name: value}, kind) == {name: value}
    for value in wrong:
        assert pointers({name: value}, kind) == {f"/metadata/{name}"}, value


def test_every_wrong_field_is_named_at_once() -> None:
    wrong = {"card_last_four": "x", "location": 1, "merchant_name": "fine", "free": 1}
    assert pointers(wrong, TransactionType.CARD) == {"/metadata/card_last_four", "/metadata/location"}


def test_nothing_said_is_an_empty_object() -> None:
    assert read_metadata(b"null", None) == read_metadata(b" {} ", None) == b"{}"


@pytest.mark.parametrize("literal", [b"[]", b'"a"', b"1", b"true", b"[{}]"])
def test_what_is_no_object_is_refused(literal: bytes) -> None:
    assert refusal(literal) == "must be an object"


def test_as_many_bytes_as_were_sent_count() -> None:
    largest = b'{"a":"%b"}' % (b"x" * (METADATA_BYTES_MAX - 8))
    assert len(largest) == METADATA_BYTES_MAX
    assert read_metadata(largest, None) == largest
    assert "4096 bytes" in refusal(largest.replace(b":", b": "))


def test_what_would_be_kept_is_no_longer_than_what_may_be_sent() -> None:
    assert "4096 bytes" in refusal(b'{"a":[%b]}' % b",".join([b"1e15"] * 800))


def test_nesting_has_a_bound() -> None:
    assert read_metadata(nested(DEPTH_MAX), None) == nested(DEPTH_MAX)
    in_lists = b'{"a":' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}"
    assert read_metadata(in_lists, None) == in_lists
    for literal in (nested(DEPTH_MAX + 1), in_lists.replace(b"[]", b"[[]]"), nested(600), b"[" * 4000):
        if literal.startswith(b"[["):
            literal = b'{"a":' + literal[:2000] + b"]" * 2000 + b"}"
        assert "nested" in refusal(literal)


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)], ids=hex)
def test_control_characters_but_tabs_and_line_breaks_are_refused(code: int) -> None:
    char = chr(code)
    for value in ({"a": f"b{char}"}, {"a": [{"b": char}]}, {f"a{char}": 1}, {"a": {char: 1}}):
        if char in "\t\n\r":
            assert kept(value) == value
        else:
            assert "control" in refusal(json.dumps(value).encode())


@pytest.mark.parametrize("number", [b"1e309", b"-1e309", b"1e999999999"])
def test_a_number_that_no_float_holds_is_refused(number: bytes) -> None:
    assert "numbers" in refusal(b'{"a":[%b]}' % number)


Values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=12,
)


@given(value=st.dictionaries(st.text("xyz", max_size=3), Values, max_size=4), data=st.data())
@settings(deadline=None, max_examples=40)
def test_what_is_kept_is_what_was_said_in_one_spelling(
    value: dict[str, Any], data: st.DataObject
) -> None:
    first = read_metadata(json.dumps(value).encode(), None)
    assert json.loads(first) == value
    shuffled = dict(data.draw(st.permutations(list(value.items()))))
    spelled = json.dumps(shuffled, ensure_ascii=False, indent=data.draw(st.sampled_from([None, 1])))
    assert read_metadata(spelled.encode(), None) == first
    assert read_metadata(first, None) == first
