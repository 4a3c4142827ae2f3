"""How many connections there is room for, and what becomes of those past the last.

Each takes a file descriptor, and the database needs some too. One too many is told so, once it has
asked for something: an answer before the question is an answer to nothing, for most clients. A platform
that asks whether the process is alive gets the truth: it must not be restarted for being well visited.
Idle connections are not closed to make room: a client may count on the time it was promised, and they
end soon enough.
"""

import asyncio
import re
from typing import Final

from app.web.answers import Answer, Code, unavailable
from app.web.counts import UNKNOWN, Counts
from app.web.health import ALIVE
from app.web.limits import Awaited, Departure, Patience
from app.web.request_log import UNREAD, RequestLog
from app.web.resource import make_request_id

# Connections that are told there is no room, at a time; past these, whoever has been silent for longest
# is not even answered, so that one that asks at once is heard, however many say nothing.
TURNED_AWAY_MAX: Final = 64
# How long one of them may take to ask for something.
_ASK_SECONDS: Final = 1.0

_PROBE: Final = re.compile(rb"(?:GET|HEAD) /(?:livez|health)(?:\?[!-~]*)? HTTP/1\.[01]\r\n")
_LINE: Final = re.compile(rb"([A-Z]+) (/[!->@-~]*)(?:\?[!-~]*)? HTTP/1\.[01]\r\n")
_NO_ROOM: Final = unavailable(
    Code.TOO_MANY_CONNECTIONS, "There are too many connections; nothing of this request was kept"
)


class Room:
    """The bound of one process's connections. `request_log` is None where nobody looks."""

    def __init__(
        self,
        connections_max: int,
        request_log: RequestLog | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._connections_max = connections_max
        self._request_log = request_log
        self._counts = counts or Counts()
        self._turned_away: dict[_TurnedAway, None] = {}
        """In the order in which they came."""

    def is_full(self, connections: int) -> bool:
        """Whether there is no room for one more than these."""
        return connections >= self._connections_max

    def turn_away(self, transport: asyncio.Transport) -> None:
        """Take a connection over from its protocol, to end it."""
        if len(self._turned_away) >= TURNED_AWAY_MAX:
            silent = (other for other in self._turned_away if other.is_silent)
            # Where all have their answers, the first has had the most time to read it.
            next(silent, next(iter(self._turned_away))).drop()
        self._counts.connections_refused += 1
        away = _TurnedAway(transport, self._turned_away, self._request_log, self._counts)
        transport.set_protocol(away)


class _TurnedAway(asyncio.Protocol):
    """A connection past the last: one answer, then the end."""

    def __init__(
        self,
        transport: asyncio.Transport,
        others: "dict[_TurnedAway, None]",
        request_log: RequestLog | None,
        counts: Counts,
    ) -> None:
        self._transport = transport
        self._counts = counts
        self._others = others
        self._request_log = request_log
        others[self] = None
        self._departure = Departure(transport)
        loop = asyncio.get_running_loop()
        self._patience = Patience(loop, _ASK_SECONDS, self._awaited, self._expire)
        self._patience.begin(Awaited.REQUEST)

    @property
    def is_silent(self) -> bool:
        """Whether it has not asked for anything."""
        return not self._departure.has_begun

    def drop(self) -> None:
        """Make room for another one at once."""
        self._others.pop(self, None)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer the first request, if it came in one piece, as that of a probe does."""
        if self._departure.has_begun:
            self._departure.discard(data)
            return
        has_body = not data.startswith(b"HEAD ")
        line = _LINE.match(data)
        method, path = (part.decode() for part in line.groups()) if line else ("", UNKNOWN)
        if _PROBE.match(data):
            self._counts.at(method, path)[ALIVE.status] += 1
            self._answer(ALIVE, b"", has_body=has_body)
        else:
            request_id = make_request_id()
            self._counts.at(method, path)[_NO_ROOM.status] += 1
            self._counts.refuse(method, path, _NO_ROOM.status)
            if self._request_log is not None:
                told = UNREAD._replace(request_id=request_id)
                self._request_log.refused(_NO_ROOM.status, _NO_ROOM.body, told)
            self._answer(_NO_ROOM, b"x-request-id: %b\r\n" % request_id, has_body=has_body)

    def eof_received(self) -> None:
        """Close, which is what asyncio does by itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for the next one that finds none."""
        self._patience.end()
        self._others.pop(self, None)

    def _answer(self, answer: Answer, more: bytes, *, has_body: bool) -> None:
        body = answer.body if has_body else b""
        self._transport.write(b"%b%bconnection: close\r\n\r\n%b" % (answer.head, more, body))
        self._departure.begin(lingers=True)
        self._patience.begin(Awaited.LEAVING)

    def _awaited(self) -> Awaited:
        return Awaited.LEAVING if self._departure.has_begun else Awaited.REQUEST

    def _expire(self, awaited: Awaited) -> None:
        self._transport.abort()
