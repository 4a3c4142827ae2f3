"""A Resource is the ASGI application of one path: it finds the handler and writes its answer.

A handler is an async function of the ASGI scope, receive and the caller. It returns an Answer or
raises Problem; whatever else it raises becomes a 500 that tells the caller nothing but where to look.
"""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import structlog
from starlette.types import Receive, Scope, Send

from app.web.answers import Answer, Code, Problem, Relayed, problem, unavailable
from app.web.body import Disconnected
from app.web.counts import UNKNOWN, Counts
from app.web.guard import ANYONE, Caller, Guard, Permission
from app.web.rate_limit import RateLimit, address_name
from app.web.trace import trace_of

SANE_REQUEST_ID: Final = re.compile(rb"[!-~]{1,64}")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Handler = Callable[[Scope, Receive, Caller], Awaitable[Answer]]


class Streamed(Answer, frozen=True):
    """An answer whose body goes on: `body` is its beginning, and `go_on` writes the rest of it."""

    go_on: Callable[[Send], Awaitable[None]]


class Entry(NamedTuple):
    """A handler, and what its caller must be permitted; None lets in anyone."""

    handler: Handler
    permission: Permission | None


class Resource:
    """Answers the methods it has handlers for, and 405 to the others, at a limited rate if need be.

    A handler that takes transactions in counts what has become of those it answers, and raises Problem
    where it never got to see them: then they are counted here.
    """

    def __init__(
        self,
        guard: Guard,
        limit: RateLimit | None,
        entries: Mapping[str, Entry],
        counts: Counts,
        path: str,
    ) -> None:
        self._counts = counts
        self._path = path
        self._guard = guard
        self._limit = limit
        self._entries = dict(entries)
        if "GET" in entries:
            # The server leaves out the body of an answer to HEAD.
            self._entries["HEAD"] = entries["GET"]
        self._method_not_allowed = problem(
            HTTPStatus.METHOD_NOT_ALLOWED,
            Code.METHOD_NOT_ALLOWED,
            "This path does not have that method",
            headers=((b"allow", ", ".join(self._entries).encode()),),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        request_id = sane_request_id(scope)
        entry = self._entries.get(scope["method"])
        try:
            if entry is None:
                answer = self._method_not_allowed
            else:
                caller = await self._caller(scope, entry.permission)
                answer = await entry.handler(scope, receive, caller)
        except Problem as refusal:
            answer, request_id = refusal.answer, request_id or refusal.request_id
            if not isinstance(refusal, Relayed):
                self._counts.refuse(scope["method"], self._path, answer.status)
        except Disconnected:
            return
        except asyncio.CancelledError:
            # A drain that took too long; the task ends by itself once it has said so.
            answer = CUT_SHORT
        except Exception:
            request_id = request_id or make_request_id()
            answer = internal_error(request_id, trace_of(scope["headers"]))
            self._counts.refuse(scope["method"], self._path, answer.status)
        self._counts.of(scope["method"], self._path)[answer.status] += 1
        await respond(send, answer, request_id)

    async def _caller(self, scope: Scope, permission: Permission | None) -> Caller:
        if permission is None:
            return ANYONE
        authorization = joined_header(scope, b"authorization")
        known = self._guard.recognise(authorization, permission)
        try:
            caller = known or await self._guard.admit(authorization, permission)
        except Problem:
            self._count(None, scope)
            raise
        self._count(caller.subject, scope)
        return caller

    def _count(self, subject: str | None, scope: Scope) -> None:
        """Count a request against the rate of its subject, or else address. Raises Problem."""
        if self._limit is not None:
            refusal = self._limit.take(subject or address_name(scope))
            if refusal is not None:
                raise Problem(refusal)


class NotFound:
    """The ASGI application of every path that does not exist."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        self._counts.of(scope["method"], UNKNOWN)[_NOT_FOUND.status] += 1
        await respond(send, _NOT_FOUND, sane_request_id(scope))


def make_request_id() -> bytes:
    """An id for a request whose caller sent none."""
    return uuid.uuid4().hex.encode()


def internal_error(request_id: bytes, trace_id: bytes | None = None) -> Answer:
    """The answer to a request whose handler raised the current exception, which is logged."""
    traced = {"trace_id": trace_id.decode()} if trace_id else {}
    log.exception("request_failed", request_id=request_id.decode(), **traced)
    return _INTERNAL_ERROR


def sane_request_id(scope: Scope) -> bytes | None:
    """The id a caller gave the request, where it is one to be repeated."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_REQUEST_ID.fullmatch(value):
            return bytes(value)
    return None


def joined_header(scope: Scope, wanted: bytes) -> bytes | None:
    """The value of a header, of several joined by commas, None where there is none."""
    values = [value for name, value in scope["headers"] if name == wanted]
    return b", ".join(values) if values else None


async def respond(send: Send, answer: Answer, request_id: bytes | None) -> None:
    """Write an answer with the caller's request id; an error has one in any case."""
    headers = answer.headers
    if request_id is None and answer.status >= HTTPStatus.BAD_REQUEST:
        request_id = make_request_id()
    if request_id is not None:
        headers = (*headers, (b"x-request-id", request_id))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    goes_on = isinstance(answer, Streamed)
    await send({"type": "http.response.body", "body": answer.body, "more_body": goes_on})
    if isinstance(answer, Streamed):
        await answer.go_on(send)


_NOT_FOUND: Final = problem(HTTPStatus.NOT_FOUND, Code.NOT_FOUND, "There is nothing at this path")
_INTERNAL_ERROR: Final = problem(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.INTERNAL_ERROR,
    "The request could not be handled; the log has the reason under its request id",
)
CUT_SHORT: Final = unavailable(
    Code.NOT_READY, "Shutting down; whether this request was kept is not known"
)
