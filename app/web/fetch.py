"""Fetches one small document over HTTP: a GET, within bounds of time and size.

A client library would be four more packages in every image and some 20 ms and 6 MB in a start, for this
one request, and the parser is there already. Redirects are not followed, and no proxy is asked.
"""

import asyncio
import ssl
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import httptools

_TIMEOUT_SECONDS: Final = 5.0
_BODY_BYTES_MAX: Final = 262_144
# Headers included.
_ANSWER_BYTES_MAX: Final = _BODY_BYTES_MAX + 65_536
_PIECE_BYTES: Final = 65_536


class FetchFailed(Exception):
    """The document cannot be had now; the message says why, in one line."""


class Fetcher:
    """Fetches what is at `url`."""

    def __init__(self, url: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        target = urlsplit(url)
        self._host = target.hostname or ""
        is_secure = target.scheme == "https"
        self._port = target.port or (443 if is_secure else 80)
        self._tls = ssl.create_default_context() if is_secure else None
        self._timeout_seconds = timeout_seconds
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        self._request = (
            f"GET {path} HTTP/1.1\r\nhost: {target.netloc}\r\naccept: application/json\r\n"
            "accept-encoding: identity\r\nuser-agent: millrace\r\nconnection: close\r\n\r\n"
        ).encode("latin-1")

    async def __call__(self) -> bytes:
        """The document's body. Raises FetchFailed."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._fetch()
        except TimeoutError:
            raise FetchFailed(f"no answer within {self._timeout_seconds:g} s") from None
        except (
            OSError,
            UnicodeError,  # of a host that cannot be a name
            httptools.HttpParserError,
            httptools.HttpParserUpgrade,
        ) as error:
            raise FetchFailed(str(error) or type(error).__name__) from None

    async def _fetch(self) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            writer.write(self._request)
            answer = _Answer()
            received = 0
            while not answer.is_whole and (piece := await reader.read(_PIECE_BYTES)):
                received += len(piece)
                if received > _ANSWER_BYTES_MAX:
                    raise FetchFailed(f"the answer is larger than {_ANSWER_BYTES_MAX} bytes")
                answer.parser.feed_data(piece)
            status = answer.parser.get_status_code()
        finally:
            writer.transport.abort()
        # An answer without a length ends with its connection; what is cut off is no JSON.
        if status != HTTPStatus.OK:
            raise FetchFailed(f"the answer is {status}" if status else "there is no answer")
        return bytes(answer.body)


class _Answer:
    """What the parser calls out."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_whole = False
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True
