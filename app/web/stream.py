"""GET /stats/stream: the figures as server-sent events, as often as asked for, until someone ends it.

An event is the state there is, no piece of a history: whoever comes back begins with the newest and has
missed nothing. All who ask the same question at the same pace share one ticker, which encodes once for
all of them, and hands out in small slices, with other requests between. Nobody waits for anybody: who
has not taken the last event when the next one comes gets the newest when they are ready, and who takes
nothing for long is cut off as any connection is.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_plus

import structlog
from starlette.types import Receive, Scope, Send

from app.core.transaction import FieldError
from app.web.answers import (
    Answer,
    Code,
    Problem,
    invalid_parameters,
    make_answer,
    unavailable,
)
from app.web.guard import Caller, Guard, Permission
from app.web.resource import Streamed, joined_header
from app.web.stats import Question, Stats, parse_span_ms

# A subscriber costs some 35 us an event, much of it the system call, and 20 KB; one that does not read
# has 64 KiB waiting for it besides. 2000 of them are a fifteenth of a core at the usual pace, a quarter
# at the highest, and 170 MB at worst. They are connections that others cannot have: half, at most.
_SUBSCRIBERS_MAX: Final = 2000
# To encode costs up to 50 us: this many at the highest pace are about a hundredth of a core.
_TICKERS_MAX: Final = 64

_INTERVAL_MS: Final = 1000
_INTERVAL_MS_MIN: Final = 250
_INTERVAL_MS_MAX: Final = 60_000
# Proxies close what is silent, often after 30 s; and this is how one notices that a client has gone.
_SILENCE_SECONDS_MAX: Final = 15.0

# So many are written to without a pause: about a seventh of a millisecond, which hardly anyone notices.
_SLICE: Final = 4
_PAUSE_SECONDS: Final = 0.002
# The last of a crowd gets its event at most so late, as a part of the interval.
_SPREAD: Final = 0.5

_RETRY: Final = b"retry: 1000\n"
_HEARTBEAT: Final = b":\n\n"

_START: Final = make_answer(
    HTTPStatus.OK,
    (
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),  # nginx would keep events until it has a page full of them.
    ),
)
_FULL: Final = unavailable(
    Code.TOO_MANY_SUBSCRIBERS, "There are as many streams of figures as there may be", 5
)
_ENDING: Final = unavailable(Code.NOT_READY, "Not ready: shutting down")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class StatsStream:
    """Tells figures again and again. At most half of `connections_max` may listen at a time."""

    def __init__(self, stats: Stats, guard: Guard, connections_max: int) -> None:
        self._stats = stats
        self._guard = guard
        self._subscribers_max = min(_SUBSCRIBERS_MAX, max(connections_max // 2, 1))
        self._subscribers = 0
        self._tickers: dict[tuple[int, Question], _Ticker] = {}
        self._has_ended = False

    async def get(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Begin a stream, with an event at once."""
        interval_ms, question = self._asked(scope["query_string"])
        if self._has_ended:
            raise Problem(_ENDING)
        # The plain question has a place of its own, so that some who ask others do not end the page.
        is_other = bool(scope["query_string"]) and (interval_ms, question) not in self._tickers
        if self._subscribers >= self._subscribers_max or (
            is_other and len(self._tickers) >= _TICKERS_MAX
        ):
            raise Problem(_FULL)
        if scope["method"] == "HEAD":
            return _START
        authorization = joined_header(scope, b"authorization")
        go_on = partial(self._go_on, receive, interval_ms, question, authorization)
        return Streamed(_START.status, _START.headers, _RETRY + self._tell(question), _START.head, go_on)

    def end(self) -> None:
        """End all streams: what is under way would keep the door from shutting."""
        self._has_ended = True
        for ticker in self._tickers.values():
            ticker.end()

    async def _go_on(
        self,
        receive: Receive,
        interval_ms: int,
        question: Question,
        authorization: bytes | None,
        send: Send,
    ) -> None:
        ticker = self._tickers.get((interval_ms, question))
        if ticker is None:
            ticker = _Ticker(interval_ms / 1000, partial(self._tell, question))
            self._tickers[interval_ms, question] = ticker
        subscriber = _Subscriber()
        ticker.subscribers[subscriber] = None
        self._subscribers += 1
        leaving = asyncio.create_task(_until_gone(receive, subscriber))
        try:
            while (event := await subscriber.next()) is not None and (
                self._guard.recognise(authorization, Permission.STATS) is not None
                or await self._may(authorization)
            ):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()
            self._subscribers -= 1
            del ticker.subscribers[subscriber]
            if not ticker.subscribers:
                ticker.close()
                del self._tickers[interval_ms, question]

    async def _may(self, authorization: bytes | None) -> bool:
        """Whether the token is still good: it may have expired, or its key been withdrawn."""
        try:
            await self._guard.admit(authorization, Permission.STATS)
        except Problem:
            return False
        return True

    def _tell(self, question: Question) -> bytes:
        try:
            as_of_ms, figures = self._stats.figures(question)
        except Problem as trouble:
            return b"event: unready\ndata: %b\n\n" % trouble.answer.body
        return b"id: %d\ndata: %b\n\n" % (as_of_ms, figures)

    def _asked(self, query: bytes) -> tuple[int, Question]:
        """The interval and the question of a query. Raises Problem."""
        intervals: list[str] = []
        others: list[bytes] = []
        for pair in query.split(b"&"):
            name, _, value = pair.decode("latin-1").partition("=")
            if unquote_plus(name) == "interval":
                intervals.append(unquote_plus(value))
            else:
                others.append(pair)
        question = self._stats.question(b"&".join(others))
        if question.user_id is not None:
            raise invalid_parameters([FieldError("/user_id", "is not a parameter of a stream")])
        if not intervals:
            return _INTERVAL_MS, question
        interval_ms = parse_span_ms(intervals[0]) or 0
        if len(intervals) > 1:
            raise invalid_parameters([FieldError("/interval", "must not be given twice")])
        if not _INTERVAL_MS_MIN <= interval_ms <= _INTERVAL_MS_MAX:
            detail = "must be a span from 250ms to 60s, such as 500ms, 1s or 5"
            raise invalid_parameters([FieldError("/interval", detail)])
        return interval_ms, question


class _Subscriber:
    """One who listens, with the newest event they have not been told."""

    __slots__ = ("_event", "_has_ended", "_waiting")

    def __init__(self) -> None:
        self._event: bytes | None = None
        self._has_ended = False
        self._waiting: asyncio.Future[None] | None = None

    def offer(self, event: bytes) -> None:
        """Have it told, in the place of one that was not."""
        if event is not _HEARTBEAT or self._event is None:
            self._event = event
        self._wake()

    def end(self) -> None:
        """Have it told no more."""
        self._has_ended = True
        self._wake()

    async def next(self) -> bytes | None:
        """What to tell next, once there is something; None at the end."""
        if self._event is None and not self._has_ended:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        event, self._event = self._event, None
        return None if self._has_ended else event

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class _Ticker:
    """Tells all its subscribers the same. `tell` makes an event."""

    def __init__(self, interval_seconds: float, tell: Callable[[], bytes]) -> None:
        self._tell = tell
        # An interval that is too long to be silent is divided by heartbeats.
        self._beats = int(-(-interval_seconds // _SILENCE_SECONDS_MAX))
        self._beat_seconds = interval_seconds / self._beats
        self._spread_seconds = min(interval_seconds, 1.0) * _SPREAD
        self.subscribers: dict[_Subscriber, None] = {}
        self._running = asyncio.create_task(self._run())

    def end(self) -> None:
        """End what its subscribers listen to."""
        for subscriber in self.subscribers:
            subscriber.end()

    def close(self) -> None:
        """Tick no more."""
        self._running.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due, beat = loop.time(), 0
        while True:
            # What a loop that was held up has missed is not made up for.
            due = max(due + self._beat_seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            beat = (beat + 1) % self._beats
            try:
                event = _HEARTBEAT if beat else self._tell()
            except Exception:
                log.exception("stream_failed")
                self.end()
            else:
                await self._hand_out(event)

    async def _hand_out(self, event: bytes) -> None:
        everyone = list(self.subscribers)
        pauses_max = int(self._spread_seconds / _PAUSE_SECONDS)
        size = max(_SLICE, -(-len(everyone) // pauses_max))
        for start in range(0, len(everyone), size):
            if start:
                await asyncio.sleep(_PAUSE_SECONDS)
            for subscriber in everyone[start : start + size]:
                subscriber.offer(event)


async def _until_gone(receive: Receive, subscriber: _Subscriber) -> None:
    """End a stream whose client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    subscriber.end()
