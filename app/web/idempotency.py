"""The Idempotency-Key header, as either lane finds it."""

import re
from http import HTTPStatus
from typing import Final

from starlette.types import Scope

from app.core.idempotency import KEY_PATTERN
from app.web.answers import Code, Problem, problem

HEADER: Final = b"idempotency-key"
SANE_KEY: Final = re.compile(KEY_PATTERN.encode())

_MALFORMED: Final = problem(
    HTTPStatus.BAD_REQUEST,
    Code.MALFORMED_IDEMPOTENCY_KEY,
    "Idempotency-Key must be one header of 1 to 255 visible ASCII characters",
)
CONFLICT: Final = problem(
    HTTPStatus.CONFLICT,
    Code.IDEMPOTENCY_CONFLICT,
    "This Idempotency-Key was used with another body",
)


def idempotency_key(scope: Scope) -> bytes | None:
    """The key of a request, None where it has none. Raises Problem."""
    found = [value for name, value in scope["headers"] if name == HEADER]
    if not found:
        return None
    if len(found) > 1 or not SANE_KEY.fullmatch(found[0]):
        raise Problem(_MALFORMED)
    return bytes(found[0])
