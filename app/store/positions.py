"""Positions: the order of the feed as one 64-bit number a row, as SQLite's full-text index needs it.

A position is a time and a place among the rows of the same millisecond: 21 bits, two million rows. What
happened before 1970 has 17 bits, and from the year 2109 on there is no order left.
"""

from typing import Final

_PLACE_BITS: Final = 21
_EARLY_PLACE_BITS: Final = 17
_TIME_MS_MAX: Final = (1 << 63 - _PLACE_BITS) - 1

POSITION_MIN: Final = -(1 << 63)

FIRST_SQL: Final = f"""
    iif(timestamp_ms < 0, timestamp_ms << {_EARLY_PLACE_BITS},
        min(timestamp_ms, {_TIME_MS_MAX}) << {_PLACE_BITS})
"""
"""The first position of a `timestamp_ms`, as `first_position` has it."""
LAST_SQL: Final = f"""
    {FIRST_SQL} + iif(timestamp_ms < 0, {(1 << _EARLY_PLACE_BITS) - 1}, {(1 << _PLACE_BITS) - 1})
"""


def first_position(timestamp_ms: int) -> int:
    """The first position of a millisecond; the last one is that before the next one's first."""
    if timestamp_ms < 0:
        return timestamp_ms << _EARLY_PLACE_BITS
    return min(timestamp_ms, _TIME_MS_MAX) << _PLACE_BITS
