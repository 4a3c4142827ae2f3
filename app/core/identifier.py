"""Transaction ids: UUID version 7 with a counter (RFC 9562, section 6.2, methods 1 and 3).

    48 bits  milliseconds since the epoch, never decreasing within a process
     4 bits  version
    12 bits  counter, high part
     2 bits  variant
    14 bits  counter, low part
    48 bits  random, drawn once for each process

Ids of one process sort by arrival: the counter starts at zero each millisecond, and where its
2^26 values or the clock run out it borrows the next millisecond. Ids of two processes differ by the
random part; an id is unique, not secret.
"""

import uuid
from typing import Final

_COUNTER_BITS: Final = 26
_LOW_BITS: Final = 14
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62


class IdentifierSource:
    """Makes the ids of one process. `process_bits` is 48 random bits of its own."""

    def __init__(self, process_bits: int) -> None:
        self._constant = _VERSION | _VARIANT | (process_bits & ((1 << 48) - 1))
        # Milliseconds and counter in one integer: an overflow of the counter carries into time.
        self._last = 0

    def next(self, now_ms: int) -> bytes:
        """The next id, as 16 bytes that sort after every id made before."""
        last = self._last = max(self._last + 1, now_ms << _COUNTER_BITS)
        high = last >> _LOW_BITS
        value = (high >> 12) << 80 | (high & 0xFFF) << 64 | (last & _LOW_MASK) << 48 | self._constant
        return value.to_bytes(16, "big")


def format_identifier(identifier: bytes) -> str:
    """Write an id in the usual hexadecimal form with hyphens."""
    return str(uuid.UUID(bytes=identifier))
