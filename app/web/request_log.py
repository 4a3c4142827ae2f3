"""What is logged of single requests: those that were refused, and those that took long.

Nobody wants a line for each request, and a flood of refusals must neither fill a disk nor cost those who
are served. So of each kind of event a few are logged in a second, and of the others how many they were.

A line says which door, which answer, how long, and by which ids the caller knows the request. It says
nothing that may be a secret or a person: no body, header, query, address, id of a user, nor a path that
is not one of ours.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import structlog

from app.web.operations import OPERATIONS

# Of each kind of event: enough to see what it is.
SAMPLES_PER_SECOND_MAX: Final = 5
_SECOND: Final = 1.0

_DOORS: Final = frozenset(path for path, _ in OPERATIONS)
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_ID: Final = "/{id}"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Request(NamedTuple):
    """What a line says of a request."""

    method: str = ""
    path: str = ""
    request_id: bytes | None = None
    trace_id: bytes | None = None


UNREAD: Final = Request()
"""A request whose head was not read to its end."""


class _Coded(msgspec.Struct):
    code: str


_decode_code: Final = msgspec.json.Decoder(_Coded).decode


class RequestLog:
    """Logs samples, and what was left out. `slow_ms` is when a request has taken long; 0: never."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slow_ms: int) -> None:
        self._loop = loop
        self.slow_seconds = slow_ms / 1000 if slow_ms else float("inf")
        self._seen: dict[tuple[str, int, str], int] = {}
        """How many of each kind there were since the second began."""
        self._is_due = False

    def refused(self, status: int, body: bytes, request: Request) -> None:
        """Note an answer of 400 and above."""
        code = code_of(body)
        if self._is_sample("request_refused", status, code):
            log.info("request_refused", status=status, code=code, **_shown(request))

    def slow(self, status: int, seconds: float, request: Request) -> None:
        """Note that an answer has taken long."""
        if self._is_sample("request_slow", status, ""):
            log.warning("request_slow", status=status, ms=round(seconds * 1000), **_shown(request))

    def _is_sample(self, event: str, status: int, code: str) -> bool:
        kind = event, status, code
        self._seen[kind] = seen = self._seen.get(kind, 0) + 1
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(_SECOND, self._end_second)
        return seen <= SAMPLES_PER_SECOND_MAX

    def _end_second(self) -> None:
        """Say what was left out, and begin anew."""
        seen, self._seen, self._is_due = self._seen, {}, False
        for (event, status, code), number in seen.items():
            if number > SAMPLES_PER_SECOND_MAX:
                coded = {"code": code} if code else {}
                left_out = number - SAMPLES_PER_SECOND_MAX
                log.info("requests_not_logged", of=event, status=status, **coded, number=left_out)


def code_of(body: bytes) -> str:
    """The code in a problem's body; "" where it is none."""
    try:
        return _decode_code(body).code
    except (msgspec.DecodeError, UnicodeError):
        return ""


def door_of(path: str) -> str:
    """The door of a path, "" where it is none: what callers make up is not repeated."""
    if path in _DOORS:
        return path
    door = path.rpartition("/")[0] + _ID
    return door if door in _DOORS else ""


def _shown(request: Request) -> Mapping[str, str]:
    method, path, request_id, trace_id = request
    door = door_of(path)
    shown = {
        "method": method if method in _METHODS else "",
        "path": door,
        "request_id": (request_id or b"").decode(),
        "trace_id": (trace_id or b"").decode(),
    }
    return {name: value for name, value in shown.items() if value}
