"""Exact money: text in, integers inside, text out.

An amount is an integer count of *units*, each 10^-8 of a currency's main unit, so that every
currency's minor unit and every crypto asset's smallest part is a whole number. Floats never occur:
a JSON number is read from its literal and written from its digits.
"""

from typing import Final

import msgspec

from app.core.number import NUMBER, WHOLE_DIGITS_MAX, without_exponent

FRACTION_DIGITS: Final = 8
UNITS_PER_ONE: Final = 10**FRACTION_DIGITS
UNITS_MAX: Final = 2**63 - 1
"""Largest magnitude of one amount, in units; a sum of amounts has no bound of its own."""

# Two fraction digits are always shown.
_UNITS_PER_HUNDREDTH: Final = UNITS_PER_ONE // 100

# Nearly every amount: plain digits, far from the bounds, that need no closer look.
_WHOLE_DIGITS_USUAL: Final = 10
_ZERO: Final = ord("0")
_SCALES: Final[tuple[int, ...]] = tuple(
    10 ** (FRACTION_DIGITS - digits) for digits in range(FRACTION_DIGITS + 1)
)

_NO_NUMBER: Final = "must be a JSON number, or a string spelled like one"
_TOO_FINE: Final = f"must have at most {FRACTION_DIGITS} fraction digits"
_TOO_LARGE: Final = "must be of a magnitude of at most 92233720368.54775807"


class AmountError(ValueError):
    """The text is not an amount this service can hold exactly; the message says why."""


def parse_amount(literal: bytes) -> int:
    """Read one JSON number, or one JSON string spelled like a number, as units.

    Raises AmountError for anything else, for more than eight fraction digits and for a magnitude
    above UNITS_MAX.
    """
    whole, point, fraction = literal.partition(b".")
    if (
        whole.isdigit()
        and len(whole) <= _WHOLE_DIGITS_USUAL
        and (whole[0] != _ZERO or len(whole) == 1)
        and (fraction.isdigit() or not point)
        and len(fraction) <= FRACTION_DIGITS
    ):
        return int(whole + fraction) * _SCALES[len(fraction)]
    number = NUMBER.fullmatch(_unquoted(literal) if literal[:1] == b'"' else literal)
    if number is None:
        raise AmountError(_NO_NUMBER)
    sign, whole, fraction, exponent = number.groups(b"")
    if len(fraction) > FRACTION_DIGITS:
        raise AmountError(_TOO_FINE)
    if exponent:
        whole, fraction = without_exponent(whole, fraction, exponent)
        fraction = fraction.rstrip(b"0")
        if len(fraction) > FRACTION_DIGITS:
            raise AmountError(_TOO_FINE)
    if len(whole) > WHOLE_DIGITS_MAX:
        raise AmountError(_TOO_LARGE)
    units = int(whole + fraction.ljust(FRACTION_DIGITS, b"0"))
    if units > UNITS_MAX:
        raise AmountError(_TOO_LARGE)
    return -units if sign else units


def format_amount(units: int) -> str:
    """Write units as a decimal number with two to eight fraction digits."""
    sign = "-" if units < 0 else ""
    hundredths, rest = divmod(abs(units), _UNITS_PER_HUNDREDTH)
    whole, shown = divmod(hundredths, 100)
    if not rest:
        return f"{sign}{whole}.{shown:02d}"
    return f"{sign}{whole}.{shown:02d}" + f"{rest:06d}".rstrip("0")


def divide_rounding_half_away(dividend: int, divisor: int) -> int:
    """Divide by a positive divisor, to the nearest integer, ties away from zero."""
    quotient = (2 * abs(dividend) + divisor) // (2 * divisor)
    return -quotient if dividend < 0 else quotient


def _unquoted(literal: bytes) -> bytes:
    if b"\\" not in literal:
        return literal[1:-1]
    # An escape may spell a digit; what counts is the string, not how JSON wrote it.
    try:
        return msgspec.json.decode(literal, type=str).encode()
    except (msgspec.DecodeError, UnicodeError):
        raise AmountError(_NO_NUMBER) from None
