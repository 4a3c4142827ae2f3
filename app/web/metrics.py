"""GET /metrics: how the service is and what it has done, as Prometheus reads it.

Everything counts in integers of its own, and only here they are put together. What writes them in the
form of Prometheus or OpenMetrics is imported when someone asks for the first time.
"""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib import import_module
from typing import Final, NamedTuple, Protocol, cast

from starlette.types import Receive, Scope

from app.ledger.ledger import Ledger
from app.ledger.measures import Measures
from app.web.answers import Answer, make_answer
from app.web.counts import Counts, Tally
from app.web.guard import Caller

_EXPOSITION: Final = "app.web.exposition"


class Gathered(NamedTuple):
    """What all processes have counted."""

    total: Tally
    workers: Mapping[int, Tally]
    """Of each process that serves connections for this one, by number; none where it does so itself."""
    restarts: int


class Figures(NamedTuple):
    """All that is shown."""

    gathered: Gathered
    measures: Measures
    feed_behind_rows: int | None
    """None where the feed needs no index beside the rows."""


class _Exposition(Protocol):
    """The module that writes figures."""

    def render(self, figures: Figures, accept: str) -> tuple[bytes, str]:
        """A body of a media type that is accepted, and what that is."""


class Metrics:
    """Shows what the ledger and all processes have counted.

    `feed_behind_rows` says how far the feed's index lies behind, where there is one.
    """

    def __init__(
        self, ledger: Ledger, counts: Counts, feed_behind_rows: Callable[[], int] | None
    ) -> None:
        self._ledger = ledger
        self._counts = counts
        self._feed_behind_rows = feed_behind_rows
        self._exposition: _Exposition | None = None
        self.gather = self._gather_alone
        """Replaced where other processes serve the connections."""

    async def get(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer how everything is; what other processes have counted is waited for a little."""
        accept = ",".join(
            value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"
        )
        if self._exposition is None:
            # In a thread, as it takes a tenth of a second and more.
            self._exposition = cast(_Exposition, await asyncio.to_thread(import_module, _EXPOSITION))
        gathered = await self.gather()
        behind_rows = None if self._feed_behind_rows is None else self._feed_behind_rows()
        figures = Figures(gathered, self._ledger.measure(), behind_rows)
        body, media_type = self._exposition.render(figures, accept)
        headers = (
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"vary", b"accept"),
        )
        return make_answer(HTTPStatus.OK, headers, body)

    async def _gather_alone(self) -> Gathered:
        return Gathered(self._counts.tally(), {}, 0)
