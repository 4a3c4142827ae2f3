"""The Transaction, and how bytes become one: exactly, or not at all.

`decode` is the fast way, for what is right. What it stumbles over is read again, slowly and field by
field, so that the caller learns of every wrong field at once.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from app.core.activity import Details
from app.core.idempotency import KEY_PATTERN
from app.core.money import AmountError, parse_amount
from app.core.timestamp import (
    EPOCH_SECONDS_MAX,
    TIMESTAMP_MS_MAX,
    from_epoch,
    from_text,
    parse_timestamp,
)

Value = TypeVar("Value")

_USER_ID_CHARS_MAX: Final = 128
# Half a surrogate pair is no character.
USER_ID: Final = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{_USER_ID_CHARS_MAX}}}")

# From the first character that is no space to the end of the line: empty lines are passed over.
_KEY: Final = re.compile(KEY_PATTERN)

_LINE: Final = re.compile(rb"\S[^\n]*")

BATCH_ITEMS_MAX: Final = 10_000
# An array of more commas than this is not taken apart to see what is wrong with it: of so many
# pieces most could be items, and each costs memory before it can be counted.
COMMAS_MAX: Final = 64 * BATCH_ITEMS_MAX

_NEGATIVE: Final = "must not be negative"

_ABSENT: Final = Raw()
_NULL: Final = Raw(b"null")


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One transaction as its client stated it."""

    amount_units: int
    timestamp_ms: int
    currency: str
    user_id: str | None
    details: Details | None = None
    """None where it says nothing more, as most do."""


class Item(Transaction, frozen=True, gc=False, kw_only=True):
    """A transaction of a batch that carries a key of its own."""

    idempotency_key: str


class Row(msgspec.Struct, frozen=True, gc=False):
    """A transaction that was taken in, with its id: 128 bits that sort by arrival."""

    id: int
    transaction: Transaction


class FieldError(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with one field. `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


class Malformed(ValueError):
    """The bytes are no JSON object in UTF-8."""


class Invalid(ValueError):
    """A JSON object, but fields are missing or wrong; `errors` names every one."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors


class TooMany(Exception):
    """A batch has more than BATCH_ITEMS_MAX items."""


class TooDense(Exception):
    """A batch that is not right as a whole has more than COMMAS_MAX commas."""


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """Why an item is no transaction: a value, as an exception would keep all it was raised among."""

    errors: tuple[FieldError, ...] = ()
    malformed: str = ""
    """What is wrong with it as a whole, where it is no JSON object."""


Decoded = Transaction | Rejected
"""An item of a batch, or why it is none."""


class _Fields(msgspec.Struct, gc=False):
    """The fields as they usually arrive; whatever is spelled otherwise is read the slow way.

    An amount stays bytes until it is read exactly, and no float is looked at.
    """

    amount: Raw
    timestamp: int | str
    currency: str | None = None
    user_id: str | int | None = None


class _ItemFields(_Fields, gc=False):
    idempotency_key: str | None = None


class _UntypedFields(msgspec.Struct):
    amount: Raw = _ABSENT
    timestamp: Raw = _ABSENT
    currency: Raw = _NULL
    user_id: Raw = _NULL
    idempotency_key: Raw = _NULL


class TransactionDecoder:
    """Turns bodies into transactions under one deployment's rules."""

    def __init__(
        self, *, currencies: Collection[str], default_currency: str, allow_negative: bool
    ) -> None:
        self._currencies = frozenset(currencies)
        self._default_currency = default_currency
        self._allow_negative = allow_negative
        self._decode_fields = msgspec.json.Decoder(_Fields).decode
        self._decode_untyped_fields = msgspec.json.Decoder(_UntypedFields).decode
        self._decode_item_fields = msgspec.json.Decoder(_ItemFields).decode
        self._decode_many_fields = msgspec.json.Decoder(list[_ItemFields]).decode
        self._decode_many_raw = msgspec.json.Decoder(list[Raw]).decode

    def decode(self, body: bytes, default_user_id: str | None = None) -> Transaction:
        """Read one transaction; `default_user_id` is whose it is where it does not say.

        Raises Malformed or Invalid.
        """
        try:
            if not body.isascii():
                # The decoder passes over fields it does not know without looking at their text.
                body.decode()
            return self._transaction(self._decode_fields(body), default_user_id)
        except UnicodeDecodeError:
            raise Malformed("The body is not UTF-8") from None
        except (ValueError, RecursionError):
            transaction, _ = self._decode_slowly(body, default_user_id)
            return transaction

    def decode_array(self, body: bytes, default_user_id: str | None = None) -> Iterable[Decoded]:
        """Read a JSON array of transactions, each on its own; one with a key is an Item.

        A list where all are right. Where something is wrong an iterator, that takes its time over each.
        Raises Malformed where the body is no array, TooMany and TooDense.
        """
        try:
            if not body.isascii():
                body.decode()
            many = self._decode_many_fields(body)
            if len(many) > BATCH_ITEMS_MAX:
                raise TooMany
            return [self._item(fields, default_user_id) for fields in many]
        except UnicodeDecodeError:
            raise Malformed("The body is not UTF-8") from None
        except (ValueError, RecursionError):
            return self._decode_array_slowly(body, default_user_id)

    def decode_lines(self, body: bytes, default_user_id: str | None = None) -> Iterator[Decoded]:
        """Read transactions of a line each (NDJSON), each when it is asked for. Raises TooMany."""
        lines = [match[0] for match in islice(_LINE.finditer(body), BATCH_ITEMS_MAX + 1)]
        if len(lines) > BATCH_ITEMS_MAX:
            raise TooMany
        return (self._decode_item(line, default_user_id) for line in lines)

    def _decode_array_slowly(self, body: bytes, default_user_id: str | None) -> Iterator[Decoded]:
        if body.count(b",") > COMMAS_MAX:
            raise TooDense
        try:
            items = self._decode_many_raw(body)
        except msgspec.ValidationError:
            raise Malformed("The top level of the body is not an array") from None
        except msgspec.DecodeError as error:
            raise Malformed(str(error)) from None
        except RecursionError:
            raise Malformed("The body is nested too deeply") from None
        if len(items) > BATCH_ITEMS_MAX:
            raise TooMany
        return (self._decode_item(bytes(item), default_user_id) for item in items)

    def _decode_item(self, body: bytes, default_user_id: str | None) -> Decoded:
        try:
            return self._read_item(body, default_user_id)
        except Invalid as error:
            return Rejected(errors=error.errors)
        except Malformed as error:
            return Rejected(malformed=str(error))

    def _read_item(self, body: bytes, default_user_id: str | None) -> Transaction:
        try:
            if not body.isascii():
                body.decode()
            return self._item(self._decode_item_fields(body), default_user_id)
        except UnicodeDecodeError:
            raise Malformed("The body is not UTF-8") from None
        except (ValueError, RecursionError):
            transaction, key = self._decode_slowly(body, default_user_id, with_key=True)
            return transaction if key is None else _with_key(transaction, key)

    def _item(self, fields: _ItemFields, default_user_id: str | None) -> Transaction:
        transaction = self._transaction(fields, default_user_id)
        key = fields.idempotency_key
        return transaction if key is None else _with_key(transaction, _sane_key(key))

    def _transaction(self, fields: _Fields, default_user_id: str | None) -> Transaction:
        """Check fields of the right types. What is usual is seen to be right without a further call."""
        timestamp, currency, user_id = fields.timestamp, fields.currency, fields.user_id
        amount_units = parse_amount(bytes(fields.amount))
        if amount_units < 0 and not self._allow_negative:
            raise AmountError(_NEGATIVE)
        if not (type(timestamp) is int and EPOCH_SECONDS_MAX < timestamp <= TIMESTAMP_MS_MAX):
            timestamp = from_text(timestamp) if isinstance(timestamp, str) else from_epoch(timestamp)
        if currency not in self._currencies:
            currency = self._currency(currency)
        if (
            type(user_id) is not str
            or not user_id.isprintable()
            or not 0 < len(user_id) <= _USER_ID_CHARS_MAX
        ):
            user_id = default_user_id if user_id is None else self._user_id(user_id)
        return Transaction(amount_units, timestamp, currency, user_id)

    def _decode_slowly(
        self, body: bytes, default_user_id: str | None, *, with_key: bool = False
    ) -> tuple[Transaction, str | None]:
        fields = decode_object(self._decode_untyped_fields, body)
        errors: list[FieldError] = []
        amount_units = read_field("amount", fields.amount, self.read_amount, errors)
        timestamp_ms = read_field("timestamp", fields.timestamp, read_timestamp, errors)
        currency = read_field("currency", fields.currency, self.read_currency, errors)
        user_id = read_field("user_id", fields.user_id, self.read_user_id, errors)
        key = (
            read_field("idempotency_key", fields.idempotency_key, _key_literal, errors)
            if with_key
            else None
        )
        if amount_units is None or timestamp_ms is None or currency is None or errors:
            raise Invalid(*errors)
        user_id = default_user_id if user_id is None else user_id
        return Transaction(amount_units, timestamp_ms, currency, user_id), key

    def read_amount(self, literal: Raw) -> int:
        """A field as units. Raises ValueError, as the others of its kind do."""
        amount_units = parse_amount(bytes(literal))
        if amount_units < 0 and not self._allow_negative:
            raise AmountError(_NEGATIVE)
        return amount_units

    def _currency(self, code: str | None) -> str:
        if code is None:
            return self._default_currency
        if code not in self._currencies:
            raise ValueError("must be an ISO 4217 code in capitals, or one configured beside them")
        return code

    def read_currency(self, literal: Raw) -> str:
        """A field as a code that is taken; the default of null."""
        try:
            return self._currency(msgspec.json.decode(literal, type=str | None))
        except msgspec.DecodeError:
            raise ValueError("must be a string") from None

    def _user_id(self, user_id: str | int | None) -> str | None:
        if user_id is None:
            return None
        text = str(user_id)
        # Whatever can be printed has no control character; what cannot need not be one either.
        if not (text.isprintable() and 0 < len(text) <= _USER_ID_CHARS_MAX) and not USER_ID.fullmatch(
            text
        ):
            raise ValueError("must have 1 to 128 characters, none of them a control character")
        return text

    def read_user_id(self, literal: Raw) -> str | None:
        """A field as whose it is; None of null."""
        try:
            return self._user_id(msgspec.json.decode(literal, type=str | int | None))
        except msgspec.DecodeError:
            raise ValueError("must be a string or an integer") from None


def _with_key(transaction: Transaction, key: str) -> Item:
    return Item(
        transaction.amount_units,
        transaction.timestamp_ms,
        transaction.currency,
        transaction.user_id,
        idempotency_key=key,
    )


def _sane_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError("must have 1 to 255 visible ASCII characters")
    return key


def _key_literal(literal: Raw) -> str | None:
    try:
        key = msgspec.json.decode(literal, type=str | None)
    except msgspec.DecodeError:
        raise ValueError("must be a string") from None
    return None if key is None else _sane_key(key)


def read_timestamp(literal: Raw) -> int:
    """A field as milliseconds since the epoch. Raises ValueError."""
    return parse_timestamp(bytes(literal))


def decode_object(decode: Callable[[bytes], Value], body: bytes) -> Value:
    """What `decode` makes of a JSON object whose fields it leaves as they are. Raises Malformed."""
    try:
        return decode(body)
    except msgspec.ValidationError:
        raise Malformed("The top level of the body is not an object") from None
    except msgspec.DecodeError as error:
        raise Malformed(str(error)) from None
    except RecursionError:
        raise Malformed("The body is nested too deeply") from None


def read_field(
    name: str, literal: Raw, reader: Callable[[Raw], Value], errors: list[FieldError]
) -> Value | None:
    """What `reader` makes of the field; where it refuses, None and more errors."""
    try:
        if not bytes(literal):
            raise ValueError("is required")
        return reader(literal)
    except Invalid as error:
        errors += error.errors
    except ValueError as error:
        errors.append(FieldError(f"/{name}", str(error)))
    return None
