"""What one process counts of what it is asked and answers: plain integers, and no one else writes them.

A request is counted when it has its answer, by method, route and status. A route is a path of the table
of doors, with `{id}` as it stands there: no client can make up a label.
"""

import re
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec

from app.core.histogram import Histogram
from app.ledger.commit import Verdict
from app.ledger.outcomes import Outcomes

Statuses = defaultdict[int, int]
"""How many answers there were of each status."""

OTHER: Final = "other"
"""The method of a request that has none of ours, or of which nobody can tell."""
UNKNOWN: Final = "unknown"
"""The route of a request to a path that does not exist, or of which nobody can tell."""

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH", "TRACE"))
_POSTED_TO: Final = frozenset(("/transactions", "/transactions/batch", "/api/v1/transactions"))
_NOT_BY_THE_CALLER: Final = (429, 500, 503)

# Of the loop's timer, which is exact to a millisecond or so.
_LAG_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = resource.getpagesize()


class Tally(msgspec.Struct, array_like=True):
    """What a process has counted by now, as another one is told."""

    requests: dict[str, dict[int, int]] = {}
    """By method and route, a space between, and status."""
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)
    connections_refused: int = 0
    lag_counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(_LAG_SECONDS) + 1))
    lag_seconds: float = 0.0
    connections: int = 0
    cpu_seconds: float = 0.0
    resident_bytes: int = 0

    def add(self, other: "Tally") -> None:
        """Add what only grows; the rest is of a process alone."""
        for door, statuses in other.requests.items():
            own = self.requests.setdefault(door, {})
            for status, count in statuses.items():
                own[status] = own.get(status, 0) + count
        self.outcomes.add(other.outcomes)
        self.connections_refused += other.connections_refused
        self.lag_counts = [sum(pair) for pair in zip(self.lag_counts, other.lag_counts, strict=True)]
        self.lag_seconds += other.lag_seconds

    @property
    def lag(self) -> Histogram:
        """How late the loop was."""
        histogram = Histogram(_LAG_SECONDS)
        histogram.counts, histogram.total = self.lag_counts, self.lag_seconds
        return histogram


class Counts:
    """The counters of a process. `outcomes` are its ledger's, where it has one."""

    def __init__(self, outcomes: Outcomes | None = None) -> None:
        self.outcomes = Outcomes() if outcomes is None else outcomes
        self.lag = Histogram(_LAG_SECONDS)
        """How much later than it should the loop got to what was due, in seconds."""
        self.connections = 0
        self.connections_refused = 0
        self._statuses: dict[tuple[str, str], Statuses] = {}
        self._routes: list[tuple[re.Pattern[str], str]] = []

    def know(self, route: str) -> None:
        """Note that there is this route."""
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route))
        self._routes.append((re.compile(pattern), route))

    def of(self, method: str, route: str) -> Statuses:
        """Where the answers to these requests are counted."""
        door = (method if method in _METHODS else OTHER, route)
        statuses = self._statuses.get(door)
        if statuses is None:
            statuses = self._statuses[door] = Statuses(int)
        return statuses

    def at(self, method: str, path: str) -> Statuses:
        """The same by the path of a request."""
        route = next((route for pattern, route in self._routes if pattern.fullmatch(path)), UNKNOWN)
        return self.of(method, route)

    def refuse(self, method: str, path: str, status: int) -> None:
        """Count that what may have been a transaction was answered so before anyone looked at it."""
        if is_post(method, path):
            self.refuse_transaction(status)

    def refuse_transaction(self, status: int) -> None:
        """Count that one was answered so before the ledger, or whoever reads it, got to see it.

        What came with it is not known, so a batch is one.
        """
        self.outcomes.note(Verdict.REFUSED if status in _NOT_BY_THE_CALLER else Verdict.DECLINED)

    def tally(self) -> Tally:
        """All of it, by now."""
        return Tally(
            {f"{method} {route}": dict(each) for (method, route), each in self._statuses.items()},
            msgspec.structs.replace(self.outcomes),
            self.connections_refused,
            list(self.lag.counts),
            self.lag.total,
            self.connections,
            time.process_time(),
            _resident_bytes(),
        )


def is_post(method: str, path: str) -> bool:
    """Whether such a request brings transactions."""
    return method == "POST" and path in _POSTED_TO


def _resident_bytes() -> int:
    """How much memory this process takes; 0 where that is not to be known."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0
