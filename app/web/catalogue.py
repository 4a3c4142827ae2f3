"""Every error a client can be answered: its code, its status, and what it means.

One line an error. Whoever adds a Code adds its line here, and names it in `openapi.py` where it occurs.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from app.web.answers import Code


class Meaning(NamedTuple):
    """What stands behind a code."""

    status: HTTPStatus
    text: str


CATALOGUE: Final[Mapping[str, Meaning]] = {
    Code.MALFORMED_REQUEST: Meaning(HTTPStatus.BAD_REQUEST, "The bytes are no valid HTTP request."),
    Code.MALFORMED_BODY: Meaning(
        HTTPStatus.BAD_REQUEST, "The body is not JSON, not UTF-8, or not of the right kind at its top."
    ),
    Code.MALFORMED_IDEMPOTENCY_KEY: Meaning(
        HTTPStatus.BAD_REQUEST, "The idempotency key is not 1 to 255 visible ASCII characters."
    ),
    Code.MALFORMED_IDENTIFIER: Meaning(HTTPStatus.BAD_REQUEST, "The id in the path is none."),
    Code.MISSING_USER_ID: Meaning(
        HTTPStatus.BAD_REQUEST, "Without a token, the query must say which user it is about."
    ),
    Code.UNAUTHORIZED: Meaning(HTTPStatus.UNAUTHORIZED, "There is no valid token."),
    Code.FORBIDDEN: Meaning(
        HTTPStatus.FORBIDDEN, "The token lacks the scope, or that of reading others' rows."
    ),
    Code.NOT_FOUND: Meaning(
        HTTPStatus.NOT_FOUND, "There is nothing at this path, or nothing of that id."
    ),
    Code.METHOD_NOT_ALLOWED: Meaning(
        HTTPStatus.METHOD_NOT_ALLOWED, "This path does not have that method; `Allow` lists those it has."
    ),
    Code.REQUEST_TIMEOUT: Meaning(
        HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive whole in time."
    ),
    Code.IDEMPOTENCY_CONFLICT: Meaning(
        HTTPStatus.CONFLICT, "The same idempotency key was used with another body."
    ),
    Code.BODY_TOO_LARGE: Meaning(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is over its limit; the connection closes."
    ),
    Code.TOO_MANY_ITEMS: Meaning(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The batch has more items than one may have."
    ),
    Code.UNSUPPORTED_MEDIA_TYPE: Meaning(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is declared to be something else, or compressed."
    ),
    Code.INVALID_FIELD: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY, "A field is missing or wrong; `errors` names each one."
    ),
    Code.INVALID_PARAMETER: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "A query parameter is wrong, unknown or given twice; `errors` names each one.",
    ),
    Code.INVALID_CURSOR: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY, "The cursor is none that this service has given."
    ),
    Code.TIMESTAMP_AHEAD: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY, "The timestamp lies too far ahead of the server's clock."
    ),
    Code.RATE_LIMITED: Meaning(HTTPStatus.TOO_MANY_REQUESTS, "The caller sends more than its rate."),
    Code.HEADERS_TOO_LARGE: Meaning(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are over their limit."
    ),
    Code.TARGET_TOO_LONG: Meaning(HTTPStatus.REQUEST_URI_TOO_LONG, "The target is over its limit."),
    Code.INTERNAL_ERROR: Meaning(
        HTTPStatus.INTERNAL_SERVER_ERROR, "An error of the service; its log has the request id."
    ),
    Code.KEYS_UNAVAILABLE: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The token cannot be judged now: the keys of its issuer are not at hand.",
    ),
    Code.NOT_READY: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE, "Not now: overloaded, starting, shutting down, or the like."
    ),
    Code.TOO_MANY_TRANSACTIONS: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "More transactions lie in the window than are kept for figures of single users; those of all "
        "users are answered as ever.",
    ),
    Code.TOO_MANY_CONNECTIONS: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "There is no room for another connection; nothing of the request was kept.",
    ),
    Code.TOO_MANY_SUBSCRIBERS: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "There is no room for another stream of figures, or for one that differs from all others.",
    ),
    Code.STORE_REFUSED: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE, "The store is not at hand now; nothing of the request was kept."
    ),
    Code.STORE_FAILED: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The store has failed; whether the request was kept is not known.",
    ),
}

RETRIABLE: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses that come with `Retry-After`."""
