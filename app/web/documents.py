"""Answers that are the same for everyone, made once: whoever has one already is told so by its tag."""

import asyncio
import gzip
import re
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from starlette.types import Receive, Scope

from app.web.answers import Answer, Headers, make_answer
from app.web.guard import Caller

_TAGS: Final = re.compile(rb'(?:W/)?("[^"]*")')
_GZIP: Final = re.compile(rb"(?:^|,)\s*(?:x-)?gzip\s*(?:;\s*q=([0-9.]+)\s*)?(?=,|$)", re.IGNORECASE)


class Document:
    """Serves `body`; `is_gzip`: it is compressed already, and is unpacked for who cannot do that."""

    def __init__(
        self, media_type: bytes, body: bytes, headers: Headers = (), *, is_gzip: bool = False
    ) -> None:
        self._media_type = media_type
        self._headers = headers
        self._is_gzip = is_gzip
        more = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")) if is_gzip else ()
        self._tag = _tag(body)
        self._answer = self._word(self._tag, body, more)
        self._unpacked: Answer | None = None
        self._not_modified = make_answer(HTTPStatus.NOT_MODIFIED, _caching(self._tag))

    async def get(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """The document, or 304 to a caller that has it."""
        wanted = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        if wanted.strip() == b"*" or self._tag in _TAGS.findall(wanted):
            return self._not_modified
        if self._is_gzip and not _takes_gzip(scope):
            if self._unpacked is None:
                self._unpacked = await asyncio.to_thread(self._unpack)
            return self._unpacked
        return self._answer

    def _unpack(self) -> Answer:
        """For the rare caller that is no browser; in a thread, as it takes milliseconds, and once."""
        body = gzip.decompress(self._answer.body)
        return self._word(_tag(body), body, ((b"vary", b"accept-encoding"),))

    def _word(self, tag: bytes, body: bytes, more: Headers) -> Answer:
        described = ((b"content-type", self._media_type), (b"content-length", b"%d" % len(body)))
        return make_answer(HTTPStatus.OK, described + more + self._headers + _caching(tag), body)


def _tag(body: bytes) -> bytes:
    return b'"%b"' % sha256(body).hexdigest()[:32].encode()


def _caching(tag: bytes) -> Headers:
    """Kept, and asked for again each time: a new version shows at once."""
    return ((b"etag", tag), (b"cache-control", b"no-cache"))


def _takes_gzip(scope: Scope) -> bool:
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    match = _GZIP.search(accepted)
    return match is not None and bool((match[1] or b"1").strip(b"0."))
