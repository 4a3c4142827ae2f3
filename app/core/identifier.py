"""Transaction ids: UUID version 7 with a counter (RFC 9562, section 6.2, methods 1 and 3).

    48 bits  milliseconds since the epoch, never decreasing within a process
     4 bits  version
    12 bits  random, drawn once for each process
     2 bits  variant
    26 bits  counter
    36 bits  random, drawn once for each process

Ids of one process sort by arrival: the counter starts at zero each millisecond, and where its
2^26 values or the clock run out it borrows the next millisecond. Ids of two processes differ by the
48 random bits; an id is unique, not secret. Inside, an id is its 128 bits as an integer.
"""

import re
from collections.abc import Sequence
from typing import Final

_COUNTER_MAX: Final = (1 << 26) - 1
_COUNTER_STEP: Final = 1 << 36
_RANDOM_LOW_BITS: Final = 36
_RANDOM_HIGH_SHIFT: Final = 64
TIME_SHIFT: Final = 80
_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62

_IDENTIFIER: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class IdentifierSource:
    """Makes the ids of one process. `process_bits` is 48 random bits of its own."""

    def __init__(self, process_bits: int) -> None:
        high, low = divmod(process_bits & ((1 << 48) - 1), 1 << _RANDOM_LOW_BITS)
        self._constant = _VERSION | _VARIANT | high << _RANDOM_HIGH_SHIFT | low
        self._time_ms = -1
        self._left = 0
        self._last = 0

    def next(self, now_ms: int) -> int:
        """The next id; it is greater than every id made before."""
        if now_ms <= self._time_ms and self._left:
            self._left -= 1
            self._last += _COUNTER_STEP
        else:
            self._time_ms = max(now_ms, self._time_ms + 1)
            self._left = _COUNTER_MAX
            self._last = self._time_ms << TIME_SHIFT | self._constant
        return self._last

    def take(self, now_ms: int, count: int) -> Sequence[int]:
        """The next `count` ids, as `next` would make them one by one."""
        if count < 1:
            return ()
        first, more = self.next(now_ms), count - 1
        if more > self._left:
            return [first, *(self.next(now_ms) for _ in range(more))]
        self._left -= more
        self._last += more * _COUNTER_STEP
        return range(first, self._last + 1, _COUNTER_STEP)


def format_identifier(identifier: int) -> str:
    """Write an id in the usual hexadecimal form with hyphens."""
    digits = f"{identifier:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def created_ms(identifier: int) -> int:
    """When an id was made, in milliseconds since the epoch, by the clock of the process that made it."""
    return identifier >> TIME_SHIFT


def parse_identifier(text: str) -> int | None:
    """Read an id that `format_identifier` has written, whatever the case of its digits; else None."""
    return int(text.replace("-", ""), 16) if _IDENTIFIER.fullmatch(text) else None
