"""Pages of other origins: which of them a browser lets ask, and read the answers (an option)."""

from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.answers import Code, problem
from app.web.resource import make_request_id

_METHODS: Final = ("GET", "HEAD", "POST", "DELETE")
_REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID")
_ANSWER_HEADERS: Final = (
    "X-Request-ID",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "WWW-Authenticate",
)


class CrossOrigin(CORSMiddleware):
    """Answers preflights, and tells browsers that the pages of some origins may read the answers."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        # Without credentials, in a browser's sense: those are cookies, and tokens are none.
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_ANSWER_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; without an origin it is none of our business."""
        if any(name == b"origin" for name, _ in scope["headers"]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks for permission; a refusal has the form all errors have."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        detail = bytes(response.body).decode()
        answer = problem(HTTPStatus.FORBIDDEN, Code.FORBIDDEN, detail)
        response.status_code, response.body = answer.status, answer.body
        for name, value in answer.headers:
            response.headers[name.decode()] = value.decode()
        response.headers["x-request-id"] = make_request_id().decode()
        return response
