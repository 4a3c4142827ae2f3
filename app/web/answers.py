"""An Answer is a whole response: what both a route and the protocol itself can write.

Errors are problem details (RFC 9457) with a stable `code`.
"""

from collections.abc import Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Final

import msgspec

from app.core.transaction import FieldError

Headers = tuple[tuple[bytes, bytes], ...]

RETRY_AFTER_SECONDS: Final = 1


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole response, ready to be written by an ASGI route or by the protocol itself.

    `head` is status line and headers as they go out, without the blank line behind them.
    """

    status: int
    headers: Headers
    body: bytes
    head: bytes


def make_answer(status: HTTPStatus, headers: Headers = (), body: bytes = b"") -> Answer:
    """An answer from its parts."""
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode())]
    lines += [b"%s: %s\r\n" % header for header in headers]
    return Answer(status, headers, body, b"".join(lines))


class Code(StrEnum):
    """What went wrong, in a word that clients may rely on."""

    MALFORMED_REQUEST = "malformed_request"
    REQUEST_TIMEOUT = "request_timeout"
    HEADERS_TOO_LARGE = "headers_too_large"
    TARGET_TOO_LONG = "target_too_long"
    MALFORMED_BODY = "malformed_body"
    MALFORMED_IDEMPOTENCY_KEY = "malformed_idempotency_key"
    MALFORMED_IDENTIFIER = "malformed_identifier"
    MISSING_USER_ID = "missing_user_id"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_ITEMS = "too_many_items"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_FIELD = "invalid_field"
    INVALID_PARAMETER = "invalid_parameter"
    INVALID_CURSOR = "invalid_cursor"
    TIMESTAMP_AHEAD = "timestamp_ahead"
    RATE_LIMITED = "rate_limited"
    KEYS_UNAVAILABLE = "keys_unavailable"
    TOO_MANY_TRANSACTIONS = "too_many_transactions"
    NOT_READY = "not_ready"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_SUBSCRIBERS = "too_many_subscribers"
    STORE_REFUSED = "store_refused"
    STORE_FAILED = "store_failed"
    INTERNAL_ERROR = "internal_error"


class _ProblemDetails(msgspec.Struct, omit_defaults=True):
    title: str
    status: int
    code: str
    detail: str
    errors: Sequence[FieldError] = ()


class Problem(Exception):
    """Ends the handling of a request with an answer, which may be known by an id already."""

    def __init__(self, answer: Answer, request_id: bytes | None = None) -> None:
        super().__init__(answer.status)
        self.answer = answer
        self.request_id = request_id


class Relayed(Problem):
    """One that another process has met with, and has counted."""


def json_answer(status: HTTPStatus, body: bytes) -> Answer:
    """An answer whose body is JSON already."""
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    return make_answer(status, headers, body)


def problem(
    status: HTTPStatus,
    code: Code,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Headers = (),
) -> Answer:
    """An error in the one form all errors have."""
    body = msgspec.json.encode(_ProblemDetails(status.phrase, status, code.value, detail, errors))
    fixed = (
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    )
    return make_answer(status, fixed + headers, body)


def unavailable(code: Code, detail: str, retry_after_seconds: int = RETRY_AFTER_SECONDS) -> Answer:
    """503: the same request may succeed when it is sent again a little later."""
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        code,
        detail,
        headers=((b"retry-after", b"%d" % retry_after_seconds),),
    )


def invalid_parameters(errors: Sequence[FieldError]) -> Problem:
    """The refusal of a query string."""
    return Problem(
        problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            Code.INVALID_PARAMETER,
            "A query parameter is wrong",
            errors,
        )
    )


def pointer(name: str) -> str:
    """The JSON pointer (RFC 6901) to a name that a client has made up."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
