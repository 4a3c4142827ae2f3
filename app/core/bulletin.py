"""A bulletin: what a node tells the others it has counted.

Slots are told as they stand, never as what was added to them: told twice, late or in another order,
they come to the same. Most slots hold one transaction, so those are told shortly: some ten bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from app.core.money import UNITS_MAX
from app.core.window import Part

# Another one is not understood, and not guessed at.
BULLETIN_VERSION: Final = 1

# A sum may pass the 64 bits that MessagePack has for an integer.
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1

_SINGLE: Final = 2
_SEVERAL: Final = 6

# What is told is written into answers and logs, and added up in 64 bits: nothing else is let in. Far
# more than anyone tells at once, or counts in a window.
_Node = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{1,64}\Z")]
_Currency = Annotated[str, Meta(pattern=r"\A[A-Z0-9]{2,12}\Z")]
_Numbers = Annotated[Sequence[int], Meta(max_length=60_000)]
_COUNT_MAX: Final = 1 << 40
_Milliseconds = Annotated[int, Meta(ge=0, le=1 << 53)]


class Unreadable(ValueError):
    """These bytes are no bulletin that this version reads."""


class Slots(msgspec.Struct, frozen=True, array_like=True):
    """Slots of one currency: each by its distance from the one before, then what it holds."""

    currency: _Currency
    singles: _Numbers
    """Distance and units of those with one amount."""
    several: _Numbers
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
            _check(distance, 1, units, units, units)
            yield slot * resolution_ms, 1, units, units, units
        slot = 0
        numbers = iter(self.several)
        for distance, count, high, low, min_units, max_units in zip(*[numbers] * _SEVERAL, strict=True):
            slot += distance
            sum_units = (high << _LOW_BITS) + low
            _check(distance, count, sum_units, min_units, max_units)
            yield slot * resolution_ms, count, sum_units, min_units, max_units


def _check(distance: int, count: int, sum_units: int, min_units: int, max_units: int) -> None:
    # Slots come in order, so none comes twice.
    if distance < 1 or not (
        1 <= count <= _COUNT_MAX
        and -UNITS_MAX <= min_units <= max_units <= UNITS_MAX
        and count * min_units <= sum_units <= count * max_units
    ):
        raise Unreadable("a slot holds what none can")


class Bulletin(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One telling. Times are by the clock of the node that tells, in milliseconds since the epoch."""

    version: int
    node: _Node
    store: Annotated[bytes, Meta(max_length=64)]
    """What the node's rows are kept in."""
    is_alone: bool
    """Whether no other node keeps rows there: then the store says who it is, whatever its name."""
    epoch: Annotated[int, Meta(ge=0)]
    """The store's deletion epoch: what is of an earlier one is deleted."""
    window_ms: int
    resolution_ms: Annotated[int, Meta(ge=1)]
    told_ms: _Milliseconds
    complete_ms: _Milliseconds
    """Whatever the node had counted by then, it has told."""
    ahead_ms: Annotated[float, Meta(ge=-1e12, le=1e12)]
    """How far its clock is ahead of the exchange's, as it has measured it."""
    is_last: bool
    """Whether the node leaves, and has nothing more to tell."""
    slots: Annotated[Sequence[Slots], Meta(max_length=1000)]

    def encode(self) -> bytes:
        """As bytes."""
        return _encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Bulletin":
        """From bytes. Raises Unreadable."""
        try:
            bulletin = _decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Unreadable(str(error)) from error
        if bulletin.version != BULLETIN_VERSION:
            raise Unreadable(f"of version {bulletin.version}")
        return bulletin


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Bulletin).decode
