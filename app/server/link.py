"""What passes between a front, which has connections, and the back, which has the ledger.

Two ways, so that neither waits for the other. Requests and their answers go over a socket pair, in
either direction as much at once as has gathered in a turn of the loop. What is counted goes over a pipe,
from the back to the front alone (`telling.py`). Both carry frames: four bytes that say how long it is,
then MessagePack. Both ends are of one version: a front is started by its back.
"""

from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from struct import Struct
from typing import Final, cast

import msgspec

from app.core.window import Part, Shape
from app.ledger.mirror import Mirror
from app.ledger.statistics import Freshness
from app.web.answers import Headers
from app.web.counts import Tally
from app.web.forward import Asked

_LENGTH: Final = Struct("<I")
_HEAD_BYTES: Final = _LENGTH.size
_WORD_BITS: Final = 64
_WORD_MASK: Final = (1 << _WORD_BITS) - 1


class Post(msgspec.Struct, array_like=True, gc=False):
    """A transaction to be taken in."""

    number: int
    body: bytes
    subject: str | None
    key: bytes | None


class Question(msgspec.Struct, array_like=True, gc=False):
    """A request to be answered."""

    number: int
    asked: Asked


class Word(Enum):
    """What a front says of itself."""

    SERVING = 1
    """Its door is open."""
    ALIVE = 2
    """It was asked whether its loop turns."""
    HEARING = 3
    """It reads its pipe: from here on it can be told what is counted."""


class Upward(msgspec.Struct, array_like=True, gc=False):
    """What a front sends at once."""

    posts: Sequence[Post] = ()
    questions: Sequence[Question] = ()
    words: Sequence[Word] = ()
    rewound_from_ms: int | None = None
    """The clock was set back from this time so far that the window must be read back."""
    tally: Tally | None = None
    """What it has counted of requests, where it was asked whether it turns."""


class Answered(msgspec.Struct, array_like=True, gc=False):
    """An answer, whole. An error nobody foresaw has an id under which it is logged."""

    number: int
    status: int
    headers: Headers
    body: bytes
    request_id: bytes | None = None


class Downward(msgspec.Struct, array_like=True, gc=False):
    """What the back sends at once."""

    accepted: Sequence[tuple[int, bytes]] = ()
    """Transactions that were accepted, by number, each with the body of its answer."""
    answers: Sequence[Answered] = ()
    is_ping: bool = False


class Restart(msgspec.Struct, array_like=True, tag=1):
    """Nothing is counted any more; what is, from here on, is counted in this shape."""

    shape: Shape


_Slot = tuple[int, int, int, int, int]


class Add(msgspec.Struct, array_like=True, tag=2, gc=False):
    """These are counted."""

    currency: str
    parts: list[_Slot]


class AddLarge(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The same, where a sum passes 64 bits: it goes in two words, the higher one first."""

    currency: str
    parts: list[tuple[int, int, int, int, int, int]]


class Fresh(msgspec.Struct, array_like=True, tag=4):
    """How fresh what was counted is."""

    freshness: Freshness


class Whole(msgspec.Struct, array_like=True, tag=5):
    """All that was counted before has been told."""


Told = Restart | Add | AddLarge | Fresh | Whole


class News(msgspec.Struct, array_like=True, gc=False):
    """What is told together: it is applied together, or not at all."""

    latest_ms: int
    """The latest time that the back has read from its clock."""
    told: Sequence[Told]


_encode: Final = msgspec.msgpack.Encoder().encode
decode_upward: Final = msgspec.msgpack.Decoder(Upward).decode
decode_downward: Final = msgspec.msgpack.Decoder(Downward).decode
decode_news: Final = msgspec.msgpack.Decoder(News).decode


def added(currency: str, parts: Collection[Part]) -> Add:
    """Word that these are counted."""
    # Each has five numbers, in whatever it comes.
    return Add(currency, cast(list[_Slot], list(parts)))


def apply(news: News, mirror: Mirror) -> bool:
    """Pass on what was told; whether that was all that had been counted before."""
    is_whole = False
    for told in news.told:
        match told:
            case Add():
                mirror.add(told.currency, told.parts)
            case AddLarge():
                parts = [
                    (at_ms, count, high << _WORD_BITS | low, lowest, highest)
                    for at_ms, count, high, low, lowest, highest in told.parts
                ]
                mirror.add(told.currency, parts)
            case Restart():
                mirror.restart(told.shape)
            case Fresh():
                mirror.note(told.freshness)
            case Whole():
                is_whole = True
    mirror.note_clock(news.latest_ms)
    return is_whole


def frame_news(news: News) -> bytes:
    """A news as it goes over the wire."""
    try:
        return frame(news)
    except OverflowError:
        told = [_in_words(each) if isinstance(each, Add) else each for each in news.told]
        return frame(News(news.latest_ms, told))


def _in_words(add: Add) -> AddLarge:
    parts = [
        (at_ms, count, units >> _WORD_BITS, units & _WORD_MASK, lowest, highest)
        for at_ms, count, units, lowest, highest in add.parts
    ]
    return AddLarge(add.currency, parts)


def frame(value: object) -> bytes:
    """A message as it goes over the wire."""
    payload = _encode(value)
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Cuts what has come into frames, wherever the bytes were cut on their way."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed_bytes = _HEAD_BYTES

    def cut(self, data: bytes) -> Iterator[memoryview]:
        """The frames that are whole by now, without their lengths; to be read to the end."""
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed_bytes:
                return
            data = bytes(rest)
            rest.clear()
        view, start, end = memoryview(data), 0, len(data)
        while end - start >= _HEAD_BYTES:
            behind = start + _HEAD_BYTES + _LENGTH.unpack_from(data, start)[0]
            if behind > end:
                break
            yield view[start + _HEAD_BYTES : behind]
            start = behind
        if start < end:
            rest += view[start:]
            # Looked at again when all of it is there: a body of megabytes comes in many pieces.
            self._needed_bytes = _HEAD_BYTES
            if len(rest) >= _HEAD_BYTES:
                self._needed_bytes += _LENGTH.unpack_from(rest)[0]
