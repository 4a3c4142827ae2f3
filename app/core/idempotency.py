"""Idempotency: a key names a request, so that sending it once more does nothing once more."""

import zlib
from enum import Enum
from hashlib import blake2b
from typing import Final

import msgspec

# A batch may be answered with megabytes of errors that are much alike, or of ids.
_PLAIN_BYTES_MAX: Final = 1024
_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"
_FAST: Final = 1

# Of 2^64 keys two would share a digest by chance; a caller's own fingerprints only ever meet their own.
_DIGEST_BYTES: Final = 16


KEY_PATTERN: Final = "[!-~]{1,255}"
"""What a caller may choose as a key: visible ASCII."""


class KeyRoute(Enum):
    """What a key belongs to, beside its caller: the same text on another route is another key."""

    TRANSACTION = b"transaction"
    BATCH = b"batch"
    ITEM = b"item"
    FEED = b"feed"


class Key(msgspec.Struct, frozen=True, gc=False):
    """A key as it is kept, and what was asked under it: digests of 16 bytes each."""

    digest: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, route: KeyRoute, subject: str | None, text: bytes, content: bytes) -> "Key":
        """The key that a caller chose, for a request of that content."""
        # A subject has no control characters, so that no two callers come to the same bytes.
        name = b"\0".join((route.value, (subject or "").encode(), text))
        return cls(
            blake2b(name, digest_size=_DIGEST_BYTES).digest(),
            blake2b(content, digest_size=_DIGEST_BYTES).digest(),
        )


class Record(msgspec.Struct, frozen=True, gc=False):
    """What a key has come to stand for."""

    key: Key
    packed: bytes
    """The answer as it is kept: a byte that says how, and the rest."""
    created_ms: int

    @classmethod
    def of(cls, key: Key, answer: bytes, created_ms: int) -> "Record":
        """Remember an answer: of an item, its id; of a whole request, the body it was answered with."""
        if len(answer) <= _PLAIN_BYTES_MAX:
            return cls(key, _PLAIN + answer, created_ms)
        return cls(key, _DEFLATED + zlib.compress(answer, _FAST), created_ms)

    @property
    def answer(self) -> bytes:
        """The answer as it was given."""
        how, rest = self.packed[:1], self.packed[1:]
        return zlib.decompress(rest) if how == _DEFLATED else rest
