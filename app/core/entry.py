"""An entry of the feed: a transaction that says more of itself, and how bytes become one.

An entry comes with its history: its time may be left out, and lie in the past. What a transaction's
fields must be they must be here, too.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from app.core.activity import PLAIN, Details, Product, Status, TransactionType
from app.core.metadata import read_metadata
from app.core.transaction import (
    FieldError,
    Invalid,
    Malformed,
    Transaction,
    TransactionDecoder,
    decode_object,
    read_field,
    read_timestamp,
)

Choice = TypeVar("Choice", bound=Enum)

_ABSENT: Final = Raw()
_NULL: Final = Raw(b"null")
_NOTHING: Final = b"null"


class _Fields(msgspec.Struct):
    user_id: Raw = _NULL
    amount: Raw = _ABSENT
    currency: Raw = _NULL
    transaction_type: Raw = _NULL
    product: Raw = _NULL
    status: Raw = _NULL
    metadata: Raw = _NULL
    timestamp: Raw = _NULL


class EntryDecoder:
    """Turns bodies into transactions with their details, under the rules of a TransactionDecoder."""

    def __init__(self, rules: TransactionDecoder) -> None:
        self._rules = rules
        self._decode_fields = msgspec.json.Decoder(_Fields).decode

    def decode(self, body: bytes, now_ms: int, default_user_id: str | None = None) -> Transaction:
        """Read one entry, of now and of `default_user_id` where it does not say.

        Raises Malformed or Invalid.
        """
        try:
            body.decode()
        except UnicodeDecodeError:
            raise Malformed("The body is not UTF-8") from None
        fields = decode_object(self._decode_fields, body)
        rules, errors = self._rules, list[FieldError]()

        def user_id_or_default(literal: Raw) -> str:
            user_id = rules.read_user_id(literal) or default_user_id
            if user_id is None:
                raise ValueError("is required")
            return user_id

        def timestamp_or_now(literal: Raw) -> int:
            return now_ms if bytes(literal) == _NOTHING else read_timestamp(literal)

        user_id = read_field("user_id", fields.user_id, user_id_or_default, errors)
        amount_units = read_field("amount", fields.amount, rules.read_amount, errors)
        currency = read_field("currency", fields.currency, rules.read_currency, errors)
        kind = read_field("transaction_type", fields.transaction_type, _transaction_type, errors)
        product = read_field("product", fields.product, _product, errors)
        status = read_field("status", fields.status, _status, errors)
        metadata = read_field(
            "metadata", fields.metadata, lambda literal: read_metadata(bytes(literal), kind), errors
        )
        timestamp_ms = read_field("timestamp", fields.timestamp, timestamp_or_now, errors)
        if (
            user_id is None
            or amount_units is None
            or currency is None
            or metadata is None
            or timestamp_ms is None
            or errors
        ):
            raise Invalid(*errors)
        details = Details(kind, product, status or Status.COMPLETED, metadata)
        return Transaction(
            amount_units, timestamp_ms, currency, user_id, None if details == PLAIN else details
        )


def _choice(kind: type[Choice]) -> Callable[[Raw], Choice | None]:
    """Reads one of some words, None of null."""
    decoder: msgspec.json.Decoder[Choice | None] = msgspec.json.Decoder(kind | None)

    def read(literal: Raw) -> Choice | None:
        try:
            return decoder.decode(literal)
        except msgspec.DecodeError:
            raise ValueError(f"must be one of: {', '.join(each.value for each in kind)}") from None

    return read


_transaction_type: Final = _choice(TransactionType)
_product: Final = _choice(Product)
_status: Final = _choice(Status)
