"""uvicorn's HTTP protocol, in the contract's words where uvicorn would use its own."""

from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.web.answers import Code, problem
from app.web.resource import make_request_id

_MALFORMED: Final = problem(
    HTTPStatus.BAD_REQUEST,
    Code.MALFORMED_REQUEST,
    "The request is not valid HTTP",
    headers=((b"connection", b"close"),),
)


class Protocol(HttpToolsProtocol):
    """One connection."""

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP request, and close."""
        headers = (*_MALFORMED.headers, (b"x-request-id", make_request_id()))
        lines = [STATUS_LINE[_MALFORMED.status]]
        lines += [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([*lines, b"\r\n", _MALFORMED.body]))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: an upgrade that is not supported is served as the plain request it also is."""
