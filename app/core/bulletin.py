"""A bulletin: what a node tells the others it has counted.

Slots are told as they stand, never as what was added to them: told twice, late or in another order,
they come to the same. Most slots hold one transaction, so those are told shortly: some seven bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from app.core.money import UNITS_MAX
from app.core.window import Part

# Another one is not understood, and not guessed at.
BULLETIN_VERSION: Final = 1

# A sum may pass the 64 bits that MessagePack has for an integer.
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1

_SINGLE: Final = 2
_SEVERAL: Final = 6


class Unreadable(ValueError):
    """These bytes are no bulletin that this version reads."""


class Slots(msgspec.Struct, frozen=True, array_like=True):
    """Slots of one currency: each by its distance from the one before, then what it holds."""

    currency: str
    singles: Sequence[int]
    """Distance and units of those with one amount."""
    several: Sequence[int]
    """Distance, count, high and low part of the sum, minimum and maximum of the others."""

    @classmethod
    def of(cls, currency: str, parts: Sequence[Part], resolution_ms: int) -> "Slots":
        """Parts as slots of this length."""
        singles: list[int] = []
        several: list[int] = []
        last_single = last_several = 0
        for timestamp_ms, count, sum_units, min_units, max_units in sorted(map(tuple, parts)):
            slot = timestamp_ms // resolution_ms
            if count == 1:
                singles += slot - last_single, sum_units
                last_single = slot
            else:
                high, low = sum_units >> _LOW_BITS, sum_units & _LOW_MASK
                several += slot - last_several, count, high, low, min_units, max_units
                last_several = slot
        return cls(currency, singles, several)

    def parts(self, resolution_ms: int) -> Iterator[Part]:
        """The parts again. Raises Unreadable."""
        if len(self.singles) % _SINGLE or len(self.several) % _SEVERAL:
            raise Unreadable("a slot is cut off")
        slot = 0
        numbers = iter(self.singles)
        for distance, units in zip(numbers, numbers, strict=True):
            slot += distance
            _check(1, units, units)
            yield slot * resolution_ms, 1, units, units, units
        slot = 0
        numbers = iter(self.several)
        for distance, count, high, low, min_units, max_units in zip(*[numbers] * _SEVERAL, strict=True):
            slot += distance
            _check(count, min_units, max_units)
            yield slot * resolution_ms, count, (high << _LOW_BITS) + low, min_units, max_units


def _check(count: int, min_units: int, max_units: int) -> None:
    if count < 1 or not -UNITS_MAX <= min_units <= max_units <= UNITS_MAX:
        raise Unreadable("a slot holds what none can")


class Bulletin(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One telling. Times are by the clock of the node that tells, in milliseconds since the epoch."""

    version: int
    node: str
    store: bytes
    """What the node's rows are kept in."""
    epoch: int
    """The store's deletion epoch: what is of an earlier one is deleted."""
    window_ms: int
    resolution_ms: int
    told_ms: int
    complete_ms: int
    """Whatever the node had counted by then, it has told."""
    ahead_ms: float
    """How far its clock is ahead of the exchange's, as it has measured it."""
    is_last: bool
    """Whether the node leaves, and has nothing more to tell."""
    slots: Sequence[Slots]

    def encode(self) -> bytes:
        """As bytes."""
        return _encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Bulletin":
        """From bytes. Raises Unreadable."""
        try:
            bulletin = _decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Unreadable(str(error)) from error
        if bulletin.version != BULLETIN_VERSION:
            raise Unreadable(f"of version {bulletin.version}")
        return bulletin


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Bulletin).decode
