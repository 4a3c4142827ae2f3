"""Reads a request's JSON body, within its bounds."""

import re
from http import HTTPStatus
from typing import Final

from starlette.types import Receive, Scope

from app.web.answers import Code, Problem, problem

BODY_BYTES_MAX: Final = 65_536

_JSON: Final = re.compile(rb"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)

# What is left of such a body is not worth reading, so the connection cannot be used again.
_TOO_LARGE: Final = problem(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.BODY_TOO_LARGE,
    f"The body is larger than {BODY_BYTES_MAX} bytes",
    headers=((b"connection", b"close"),),
)
_NOT_JSON: Final = problem(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    "The body must be application/json",
)


class Disconnected(Exception):
    """The client has gone before its request was whole; there is no one to answer."""


async def read_json_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises Problem where it is too large or declared to be something else."""
    for name, value in scope["headers"]:
        if name == b"content-type" and not _JSON.fullmatch(value.strip()):
            raise Problem(_NOT_JSON)
        if name == b"content-length" and int(value) > BODY_BYTES_MAX:
            raise Problem(_TOO_LARGE)
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        if len(body) > BODY_BYTES_MAX:
            break
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise Disconnected
    if len(body) > BODY_BYTES_MAX:
        raise Problem(_TOO_LARGE)
    return body
