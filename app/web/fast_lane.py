"""The fast lane: the requests that make up the load, answered without task, scope or router.

A client sends the same head with every request. What the parser made of a head is remembered, so a
head that was seen before is one look-up; its body follows it, as long as it said. A head that asks
for anything out of the ordinary is remembered as one for the plain lane, which knows everything, and
apart from the others, so that none of those ever makes way for it.
"""

import re
from collections.abc import Callable
from typing import Final

import httptools
import msgspec

from app.web import idempotency, trace
from app.web.answers import Answer, Problem
from app.web.body import BODY_BYTES_MAX
from app.web.counts import Counts, Statuses, is_post
from app.web.guard import ANYONE, Caller, Guard, Permission
from app.web.ingest import Reply, TakeIn
from app.web.limits import HEADERS_MAX
from app.web.rate_limit import RateLimit
from app.web.resource import SANE_REQUEST_ID
from app.web.stats import Stats

# 1024 heads of either lane, of at most 4 KiB each, which has room for a token of the usual size. A
# caller who varies heads without end has all of that lane's read once more, and nothing else.
_HEADS_MAX: Final = 1024
_HEAD_BYTES_MAX: Final = 4096

_PLAIN_HEADERS: Final = frozenset(
    (b"content-encoding", b"expect", b"origin", b"transfer-encoding", b"upgrade")
)
_JSON: Final = re.compile(rb"application/json(; ?charset=utf-8)?", re.IGNORECASE)


class Head(msgspec.Struct, frozen=True):
    """What a request's head asks for, as far as the fast lane is concerned."""

    handler: "FastHandler"
    permission: Permission | None
    caller: Caller | None
    """Who sent it, where that is the same for every request."""
    query: bytes
    body_bytes: int
    authorization: bytes | None
    key: bytes | None
    request_id: bytes | None
    trace: bytes | None
    """What it says of the trace it belongs to, as it says it."""
    method: str
    path: str
    statuses: Statuses
    """Where its answer is counted."""
    is_post: bool
    """Whether it brings a transaction."""


FastHandler = Callable[[Head, bytes, Caller, Reply], None]
"""Takes head, body and caller; replies once, now or later."""


class FastLane:
    """Knows the heads it answers, and answers them; `limit` is None where every caller is anyone."""

    def __init__(
        self,
        guard: Guard,
        limit: RateLimit | None,
        take_in: TakeIn,
        stats: Stats,
        alive: Answer,
        counts: Counts,
    ) -> None:
        def post_transaction(head: Head, body: bytes, caller: Caller, reply: Reply) -> None:
            take_in(body, caller, head.key, reply)

        def get_stats(head: Head, body: bytes, caller: Caller, reply: Reply) -> None:
            try:
                answer = stats.answer(head.query, caller)
            except Problem as refusal:
                answer = refusal.answer
            reply(answer)

        def get_alive(head: Head, body: bytes, caller: Caller, reply: Reply) -> None:
            reply(alive)

        self._counts = counts
        self._may_be_elsewhere = stats.may_be_elsewhere
        self._everyone = guard.everyone
        self._recognise = guard.recognise
        self._entries: dict[tuple[bytes, bytes], tuple[FastHandler, Permission | None]] = {
            (b"POST", b"/transactions"): (post_transaction, Permission.WRITE),
            (b"GET", b"/stats"): (get_stats, Permission.STATS),
            (b"GET", b"/statistics"): (get_stats, Permission.STATS),
            (b"GET", b"/health"): (get_alive, None),
            (b"GET", b"/livez"): (get_alive, None),
        }
        if limit is not None:
            self._entries = {
                door: (handler if permission is None else self._limited(handler, limit), permission)
                for door, (handler, permission) in self._entries.items()
            }
        self._heads: dict[bytes, Head] = {}
        self._plain_heads: set[bytes] = set()

    def head(self, raw: bytes) -> Head | None:
        """What a head asks for, its last blank line included; None where it is for the plain lane."""
        try:
            return self._heads[raw]
        except KeyError:
            pass
        if len(raw) > _HEAD_BYTES_MAX or raw in self._plain_heads:
            return None
        head = self._read(raw)
        if head is None:
            if len(self._plain_heads) >= _HEADS_MAX:
                self._plain_heads.clear()
            self._plain_heads.add(raw)
            return None
        # A head with a key or an id of its own, or that asks for one user, will hardly come again, and
        # as long as nobody knows its caller it must not take the place of others.
        is_rare = head.key or head.request_id or head.trace or b"user_id" in head.query
        if not (is_rare or self.caller(head) is None):
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            self._heads[raw] = head
        return head

    def caller(self, head: Head) -> Caller | None:
        """Who sent this head; None where only the plain lane can tell, or will refuse them."""
        if head.permission is None:
            return head.caller
        return self._recognise(head.authorization, head.permission)

    def _read(self, raw: bytes) -> Head | None:
        reader = _HeadReader()
        reader.parser = parser = httptools.HttpRequestParser(reader)
        try:
            parser.feed_data(raw)
            url = httptools.parse_url(reader.url)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        entry = self._entries.get((parser.get_method(), url.path))
        is_ordinary = (
            parser.get_http_version() == "1.1"
            and reader.is_ordinary
            and reader.body_bytes <= BODY_BYTES_MAX
        )
        if entry is None or not is_ordinary or self._may_be_elsewhere(url.query or b""):
            return None
        handler, permission = entry
        method, path = parser.get_method().decode(), url.path.decode()
        return Head(
            handler=handler,
            permission=permission,
            caller=ANYONE if permission is None else self._everyone,
            query=url.query or b"",
            body_bytes=reader.body_bytes,
            authorization=reader.authorization,
            key=reader.key,
            request_id=reader.request_id,
            trace=reader.trace,
            method=method,
            path=path,
            statuses=self._counts.of(method, path),
            is_post=is_post(method, path),
        )

    def _limited(self, handler: FastHandler, limit: RateLimit) -> FastHandler:
        """A handler that is asked only as often as its caller may ask."""

        def handle(head: Head, body: bytes, caller: Caller, reply: Reply) -> None:
            refusal = limit.take(caller.subject or "")
            if refusal is None:
                handler(head, body, caller, reply)
                return
            if head.is_post:
                self._counts.refuse_transaction(refusal.status)
            reply(refusal)

        return handle


class _HeadReader:
    """Collects what the parser calls out; anything unusual makes the head one for the plain lane."""

    parser: httptools.HttpRequestParser

    def __init__(self) -> None:
        self.url = b""
        self.headers = 0
        self.hosts = 0
        self.body_bytes = 0
        self.authorization: bytes | None = None
        self.key: bytes | None = None
        self.request_id: bytes | None = None
        self.trace: bytes | None = None
        self.is_ordinary = True

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers += 1
        if name == b"content-length":
            self.body_bytes = int(value)
        elif name == b"content-type":
            self.is_ordinary &= _JSON.fullmatch(value) is not None
        elif name == b"x-request-id":
            self.is_ordinary &= self.request_id is None and bool(SANE_REQUEST_ID.fullmatch(value))
            self.request_id = value
        elif name == trace.HEADER:
            self.is_ordinary &= self.trace is None
            self.trace = value
        elif name == idempotency.HEADER:
            self.is_ordinary &= self.key is None and bool(idempotency.SANE_KEY.fullmatch(value))
            self.key = value
        elif name == b"authorization":
            self.is_ordinary &= self.authorization is None
            self.authorization = value
        elif name == b"host":
            self.hosts += 1
        elif name == b"connection":
            self.is_ordinary &= value.lower() == b"keep-alive"
        elif name in _PLAIN_HEADERS:
            self.is_ordinary = False

    def on_headers_complete(self) -> None:
        self.is_ordinary &= self.headers <= HEADERS_MAX and self.hosts == 1
        # Here, as the parser forgets it with the end of the message.
        self.is_ordinary &= self.parser.should_keep_alive() and not self.parser.should_upgrade()
