"""Instants as integer milliseconds since the Unix epoch, UTC; read exactly, written as RFC 3339."""

import re
from datetime import datetime, timedelta
from typing import Final

import msgspec

from app.core.number import NUMBER, WHOLE_DIGITS_MAX, without_exponent

_EPOCH: Final = datetime(1970, 1, 1)
_MILLISECOND: Final = timedelta(milliseconds=1)

# What RFC 3339 can write: year 1 to year 9999.
TIMESTAMP_MS_MIN: Final = -62_135_596_800_000
TIMESTAMP_MS_MAX: Final = 253_402_300_799_999

# A number up to this magnitude is seconds, above it milliseconds.
EPOCH_SECONDS_MAX: Final = 20_000_000_000

# Extended form: a date, or a date and a time of day. Basic form only with a time of day: without
# one it would be a string of digits, which is refused.
_HOUR: Final = r"[Tt ](?:[01][0-9]|2[0-3])"
_FRACTION: Final = r"(?:[.,][0-9]+)?"
_OFFSET: Final = r"(?:[Zz]|[+-][0-9]{2}(?::?[0-5][0-9])?)?"
_ISO_8601: Final = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:{_HOUR}:[0-9]{{2}}(?::[0-9]{{2}}{_FRACTION})?{_OFFSET})?"
    rf"|[0-9]{{8}}{_HOUR}[0-9]{{2}}(?:[0-9]{{2}}{_FRACTION})?{_OFFSET}"
)

_OUT_OF_RANGE: Final = "must lie between the years 1 and 9999"
_NEITHER: Final = "must be an epoch as a number, or an ISO 8601 string"


class TimestampError(ValueError):
    """The text is not an instant; the message says why."""


def parse_timestamp(literal: bytes) -> int:
    """Read one JSON number (epoch seconds or milliseconds) or JSON string (ISO 8601) as milliseconds.

    Digits below a millisecond are cut. Raises TimestampError.
    """
    if literal[:1] != b'"':
        return _in_range(_from_number(literal))
    try:
        text = msgspec.json.decode(literal, type=str)
    except (msgspec.DecodeError, UnicodeError):
        raise TimestampError(_NEITHER) from None
    return from_text(text)


def from_epoch(epoch: int) -> int:
    """A whole number, as `parse_timestamp` reads it. Raises TimestampError."""
    return _in_range(epoch * 1000 if -EPOCH_SECONDS_MAX <= epoch <= EPOCH_SECONDS_MAX else epoch)


def from_text(text: str) -> int:
    """An ISO 8601 string, as `parse_timestamp` reads it. Raises TimestampError."""
    if _ISO_8601.fullmatch(text) is None:
        raise TimestampError(_NEITHER)
    try:
        instant = datetime.fromisoformat(text.upper().replace(",", "."))
    except ValueError:
        raise TimestampError("must be a date and time that exist") from None
    offset = instant.utcoffset()
    # Naive arithmetic: the offset may carry an instant past the years a datetime can hold.
    since_epoch = instant.replace(tzinfo=None) - _EPOCH
    return _in_range((since_epoch - offset if offset else since_epoch) // _MILLISECOND)


def format_timestamp(timestamp_ms: int) -> str:
    """Write milliseconds since the epoch as `2026-01-02T03:04:05.678Z`."""
    instant = _EPOCH + timestamp_ms * _MILLISECOND
    return f"{instant.isoformat(timespec='milliseconds')}Z"


def _from_number(literal: bytes) -> int:
    number = NUMBER.fullmatch(literal)
    if number is None:
        raise TimestampError(_NEITHER)
    sign, whole, fraction, exponent = number.groups(b"")
    if exponent:
        whole, fraction = without_exponent(whole, fraction, exponent)
    if len(whole) > WHOLE_DIGITS_MAX:
        raise TimestampError(_OUT_OF_RANGE)
    # Exact, as amounts are: 1.001 seconds is 1001 ms, which a binary float would cut to 1000.
    epoch = int(whole)
    if epoch < EPOCH_SECONDS_MAX or (epoch == EPOCH_SECONDS_MAX and not fraction.strip(b"0")):
        epoch = int(whole + fraction[:3].ljust(3, b"0"))
    return -epoch if sign else epoch


def _in_range(timestamp_ms: int) -> int:
    if not TIMESTAMP_MS_MIN <= timestamp_ms <= TIMESTAMP_MS_MAX:
        raise TimestampError(_OUT_OF_RANGE)
    return timestamp_ms
