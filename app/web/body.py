"""Reads a request's JSON body, within its bounds."""

import re
import sys
from http import HTTPStatus
from typing import Final

from starlette.types import Receive, Scope

from app.web.answers import Answer, Code, Problem, problem

BODY_BYTES_MAX: Final = 65_536

_JSON: Final = re.compile(rb"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_NDJSON: Final = re.compile(rb"application/(?:x-)?ndjson\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)

_NOT_JSON: Final = problem(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    "The body must be JSON, and its content type, where there is one, must say so",
)


_DESCRIPTIONS: Final = frozenset(
    (b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
)
_LENGTH_DIGITS_MAX: Final = 18
_NO_CODINGS: Final = (b"identity", b"chunked")
_ENCODED: Final = problem(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, Code.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed"
)


class Disconnected(Exception):
    """The client has gone before its request was whole; there is no one to answer."""


def too_large(bytes_max: int) -> Answer:
    """The answer to a body that is not read to its end, so that its connection must close."""
    return problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        Code.BODY_TOO_LARGE,
        f"The body is larger than {bytes_max} bytes",
        headers=((b"connection", b"close"),),
    )


def length_bytes(content_length: bytes) -> int:
    """How long a body is declared to be, however many zeros stand before it."""
    digits = content_length.strip().lstrip(b"0")
    # A number this long is past every bound, and is not read.
    return int(digits or b"0") if len(digits) <= _LENGTH_DIGITS_MAX else sys.maxsize


def is_ndjson(scope: Scope) -> bool:
    """Whether the body is declared to be lines of JSON."""
    return any(
        name == b"content-type" and _NDJSON.fullmatch(value.strip()) for name, value in scope["headers"]
    )


def check_length(scope: Scope, bytes_max: int = BODY_BYTES_MAX) -> None:
    """Whether the body is declared to be no longer than that. Raises Problem."""
    for name, value in scope["headers"]:
        if name == b"content-length" and length_bytes(value) > bytes_max:
            raise Problem(too_large(bytes_max))


async def read_json(
    scope: Scope, receive: Receive, bytes_max: int = BODY_BYTES_MAX, *, takes_ndjson: bool = False
) -> bytes:
    """The whole body. Raises Problem where it is too large or declared to be something else."""
    for name, value in scope["headers"]:
        if name in _DESCRIPTIONS and value != b"application/json":
            _check(name, value, bytes_max, takes_ndjson=takes_ndjson)
    return await read_body(receive, bytes_max)


async def read_body(receive: Receive, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The whole body, whatever it is. Raises Problem where it is too large, Disconnected."""
    parts: list[bytes] = []
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        received += len(part)
        if received > bytes_max:
            raise Problem(too_large(bytes_max))
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _check(name: bytes, value: bytes, bytes_max: int, *, takes_ndjson: bool) -> None:
    """Whether a body that is described so is taken. Raises Problem."""
    value = value.strip()
    if name == b"content-length":
        if length_bytes(value) > bytes_max:
            raise Problem(too_large(bytes_max))
    elif name == b"content-type":
        if not (_JSON.fullmatch(value) or (takes_ndjson and _NDJSON.fullmatch(value))):
            raise Problem(_NOT_JSON)
    elif value.lower() not in _NO_CODINGS:
        raise Problem(_ENCODED)
