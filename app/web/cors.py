"""Pages of other origins: none may change anything but those that are listed, which may read, too.

A browser sends a plain POST of a page without asking anyone, and only withholds the answer. Where
whoever can connect may do anything, that would be any page its user looks at.
"""

from collections.abc import Awaitable, Collection
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.answers import Code, problem
from app.web.counts import UNKNOWN, Counts
from app.web.resource import joined_header, make_request_id, respond, sane_request_id

_METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
_REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID")
_ANSWER_HEADERS: Final = (
    "X-Request-ID",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "WWW-Authenticate",
)
_CHANGING: Final = frozenset(("POST", "DELETE", "PUT", "PATCH"))
_FOREIGN: Final = problem(
    HTTPStatus.FORBIDDEN, Code.FORBIDDEN, "Pages of this origin may not change anything here"
)


class CrossOrigin(CORSMiddleware):
    """Answers preflights, and tells browsers that the pages of some origins may read the answers."""

    def __init__(self, app: ASGIApp, origins: Collection[str], counts: Counts) -> None:
        self._counts = counts
        self._has_origins = bool(origins)
        # Without credentials, in a browser's sense: those are cookies, and tokens are none.
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_ANSWER_HEADERS,
        )

    # Not async: whoever awaits it awaits what it hands on to, with no coroutine between.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Handle one request; without an origin it is none of our business, and is no step of it."""
        for name, _ in scope["headers"]:
            if name == b"origin":
                return self._handle(scope, receive, send)
        return self.app(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = joined_header(scope, b"origin") or b""
        if scope["method"] in _CHANGING and not self._may_change(origin, scope):
            self._counts.at(scope["method"], scope["path"])[_FOREIGN.status] += 1
            self._counts.refuse(scope["method"], scope["path"], _FOREIGN.status)
            await respond(send, _FOREIGN, sane_request_id(scope))
        elif self._has_origins:
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _may_change(self, origin: bytes, scope: Scope) -> bool:
        own = (joined_header(scope, b"host") or b"").lower()
        return origin.lower().partition(b"://")[2] == own or self.is_allowed_origin(
            origin.decode("latin-1")
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks for permission; a refusal has the form all errors have."""
        response = super().preflight_response(request_headers)
        # Which path it is about is not handed on.
        self._counts.of("OPTIONS", UNKNOWN)[response.status_code] += 1
        if response.status_code == HTTPStatus.OK:
            return response
        detail = bytes(response.body).decode()
        answer = problem(HTTPStatus.FORBIDDEN, Code.FORBIDDEN, detail)
        response.status_code, response.body = answer.status, answer.body
        for name, value in answer.headers:
            response.headers[name.decode()] = value.decode()
        response.headers["x-request-id"] = make_request_id().decode()
        return response
