"""Idempotency: a key names a request, so that sending it once more does nothing once more."""

from enum import Enum
from hashlib import blake2b

import msgspec

# Of 2^64 keys two would share a digest by chance; a caller's own fingerprints only ever meet their own.
_DIGEST_BYTES = 16


class Route(Enum):
    """What a key belongs to, beside its caller: the same text on another route is another key."""

    TRANSACTION = b"transaction"
    BATCH = b"batch"
    ITEM = b"item"


class Key(msgspec.Struct, frozen=True, gc=False):
    """A key as it is kept, and what was asked under it: digests of 16 bytes each."""

    digest: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, route: Route, subject: str | None, text: bytes, content: bytes) -> "Key":
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
    answer: bytes
    """Of an item, its id; of a whole request, the body it was answered with."""
    created_ms: int
