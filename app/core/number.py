"""JSON numbers as digits: read from the literal, so that no binary float ever stands in between."""

import re
from typing import Final

NUMBER: Final = re.compile(rb"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
"""Sign, whole digits, fraction digits or None, exponent or None."""

WHOLE_DIGITS_MAX: Final = 20
"""More digits before the point than any amount or instant has."""

# Past this an exponent decides alone: no body holds enough digits to make up for it.
_SHIFT_MAX: Final = 100_000
_SHIFT_DIGITS: Final = 7


def without_exponent(whole: bytes, fraction: bytes, exponent: bytes) -> tuple[bytes, bytes]:
    """Move the point: the whole and fraction digits of the same number spelled without exponent."""
    digits = whole + fraction
    shift = min(int(exponent.lstrip(b"+-").lstrip(b"0")[:_SHIFT_DIGITS] or b"0"), _SHIFT_MAX)
    point = len(whole) + (-shift if exponent[:1] == b"-" else shift)
    if point <= 0:
        return b"0", b"0" * -point + digits
    return digits[:point].ljust(point, b"0").lstrip(b"0") or b"0", digits[point:]
