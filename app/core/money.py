"""Exact money: text in, integers inside, text out.

An amount is an integer count of *units*, each 10^-8 of a currency's main unit, so that every
currency's minor unit and every crypto asset's smallest part is a whole number. Floats never occur:
a JSON number is read from its literal and written from its digits.
"""

import re
from typing import Final

import msgspec

FRACTION_DIGITS: Final = 8
UNITS_PER_ONE: Final = 10**FRACTION_DIGITS
UNITS_MAX: Final = 2**63 - 1
"""Largest magnitude of one amount, in units; a sum of amounts has no bound of its own."""

_NUMBER: Final = re.compile(rb"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_FRACTION_DIGITS_SHOWN_MIN: Final = 2

# A significand longer than this cannot be both in range and exact once its trailing zeros are gone.
_SIGNIFICANT_DIGITS_MAX: Final = 19


class AmountError(ValueError):
    """The text is not an amount this service can hold exactly; the message says why."""


def parse_amount(literal: bytes) -> int:
    """Read one JSON number, or one JSON string spelled like a number, as units.

    Raises AmountError for anything else, for more than eight fraction digits and for a magnitude
    above UNITS_MAX.
    """
    number = _NUMBER.fullmatch(_unquoted(literal) if literal[:1] == b'"' else literal)
    if number is None:
        raise AmountError("must be a JSON number, or a string spelled like one")
    sign, whole, fraction, exponent = number.groups()
    if fraction is None:
        fraction = b""
    elif len(fraction) > FRACTION_DIGITS:
        raise AmountError(f"must have at most {FRACTION_DIGITS} fraction digits")
    if exponent is None and len(whole) <= _SIGNIFICANT_DIGITS_MAX:
        units = int(whole + fraction + b"0" * (FRACTION_DIGITS - len(fraction)))
    else:
        units = _scaled(whole + fraction, FRACTION_DIGITS - len(fraction), exponent or b"0")
    if units > UNITS_MAX:
        raise AmountError(f"must be of a magnitude of at most {format_amount(UNITS_MAX)}")
    return -units if sign else units


def format_amount(units: int) -> str:
    """Write units as a decimal number with two to eight fraction digits."""
    whole, fraction = divmod(abs(units), UNITS_PER_ONE)
    digits = f"{fraction:0{FRACTION_DIGITS}d}"
    shown = digits.rstrip("0").ljust(_FRACTION_DIGITS_SHOWN_MIN, "0")
    return f"{'-' if units < 0 else ''}{whole}.{shown}"


def divide_rounding_half_away(dividend: int, divisor: int) -> int:
    """Divide by a positive divisor, to the nearest integer, ties away from zero."""
    quotient = (2 * abs(dividend) + divisor) // (2 * divisor)
    return -quotient if dividend < 0 else quotient


def _unquoted(literal: bytes) -> bytes:
    if b"\\" not in literal:
        return literal[1:-1]
    # An escape may spell a digit; what counts is the string, not how JSON wrote it.
    return msgspec.json.decode(literal, type=str).encode("utf-8", "replace")


def _scaled(digits: bytes, shift: int, exponent: bytes) -> int:
    significant = digits.lstrip(b"0").rstrip(b"0")
    if not significant:
        return 0
    shift += len(digits) - len(digits.rstrip(b"0"))
    # Past a million the exponent decides alone: a body cannot hold enough digits to balance it.
    shift += int(exponent) if len(exponent) <= 7 else 10**7 * (-1 if exponent[:1] == b"-" else 1)
    if shift < 0:
        raise AmountError(f"must have at most {FRACTION_DIGITS} fraction digits")
    if len(significant) + shift > _SIGNIFICANT_DIGITS_MAX:
        return UNITS_MAX + 1
    return int(significant + b"0" * shift)
