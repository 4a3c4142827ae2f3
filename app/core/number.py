"""JSON numbers as digits: read from the literal, so that no binary float ever stands in between."""

import re
from typing import Final

NUMBER: Final = re.compile(rb"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
"""Sign, whole digits, fraction digits or None, exponent or None."""

WHOLE_DIGITS_MAX: Final = 20
"""More digits before the point than any amount or instant has."""

# An exponent of more digits moves the point past the end of any body, whatever its rest says.
_EXPONENT_DIGITS_MAX: Final = 18
# So many zeros tell that a number is too large or too fine; a million would tell no more.
_ZEROS_MAX: Final = 2 * WHOLE_DIGITS_MAX


def without_exponent(whole: bytes, fraction: bytes, exponent: bytes) -> tuple[bytes, bytes]:
    """Move the point: whole and fraction digits of the number, spelled without exponent.

    Of more than _ZEROS_MAX zeros that the exponent stands for, only so many are written.
    """
    digits = (whole + fraction).lstrip(b"0")
    shift = int(exponent.lstrip(b"+-").lstrip(b"0")[:_EXPONENT_DIGITS_MAX] or b"0")
    point = len(digits) - len(fraction) + (-shift if exponent[:1] == b"-" else shift)
    if not digits:
        return b"0", b""
    if point <= 0:
        return b"0", b"0" * min(-point, _ZEROS_MAX) + digits
    return digits[:point].ljust(min(point, len(digits) + _ZEROS_MAX), b"0"), digits[point:]
