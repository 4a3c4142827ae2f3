"""Cursors: a question and a place in its answer, as text that means nothing to anyone else.

A cursor is signed, so that it carries what this service was asked and nothing else. It is no permission:
whoever comes with one is asked who they are on every page.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from app.core.question import Place, Question

# As the text of a cursor this is a little less than a request's target may have.
QUESTION_BYTES_MAX: Final = 5120

# What else may once be signed with the same secret is no cursor.
_PURPOSE: Final = b"cursor 1\n"
_SIGNATURE_BYTES: Final = hashlib.sha256().digest_size
_IDENTIFIER_BYTES: Final = 16


class NoCursor(ValueError):
    """The text is no cursor of this service."""


class _Carried(msgspec.Struct, array_like=True):
    timestamp_ms: int
    id: bytes
    question: Question


_decode: Final = msgspec.msgpack.Decoder(_Carried).decode


def is_too_long(question: Question) -> bool:
    """Whether the cursors of a question would be longer than a request may be."""
    return len(msgspec.msgpack.encode(question)) > QUESTION_BYTES_MAX


def write_cursor(secret: bytes, question: Question, place: Place) -> str:
    """The text that leads on behind a place."""
    carried = _Carried(place.timestamp_ms, place.id.to_bytes(_IDENTIFIER_BYTES), question)
    payload = msgspec.msgpack.encode(carried)
    return urlsafe_b64encode(_sign(secret, payload) + payload).rstrip(b"=").decode()


def read_cursor(secret: bytes, text: str) -> tuple[Question, Place]:
    """What a cursor carries. Raises NoCursor."""
    try:
        signed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        # One cursor, one spelling: what is no base64 is passed over, and so are the last bits.
        is_canonical = urlsafe_b64encode(signed).rstrip(b"=").decode() == text
        signature, payload = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if not (is_canonical and hmac.compare_digest(signature, _sign(secret, payload))):
            raise NoCursor
        carried = _decode(payload)
    except (ValueError, msgspec.MsgspecError):
        # The last, of what another version has signed.
        raise NoCursor from None
    return carried.question, Place(carried.timestamp_ms, int.from_bytes(carried.id))


def _sign(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + payload, "sha256")
