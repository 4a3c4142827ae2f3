"""Rounds: again and again a node tells what it has counted, and hears what the others have.

A round is one exchange, whatever the load, and so many bytes a second, whatever the window holds: what
has to wait is told later, and how much later is published. Nothing waits for a round: where the exchange
is gone, transactions are taken in as before, and statistics go on with what is known.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

import structlog

from app.core.bulletin import Bulletin, Unreadable
from app.core.windows import Counted
from app.exchange.base import Exchange, ExchangeFailed, Heard
from app.exchange.breaker import Breaker
from app.ledger.cluster import Cluster, Telling
from app.ledger.statistics import Statistics
from app.store.base import StoreFailed, StoreRefused

ROUND_SECONDS: Final = 0.04
# With more nodes than this, each has fewer rounds, so that all of them together hear no more bulletins.
ROUND_NODES: Final = 30
# As long as more is to be told than goes into a bulletin: two commands each, and less than a hundred a
# second in all.
_BEHIND_PART: Final = 0.55
# What a node tells, the exchange passes on to every node, and to itself twice, so it is in proportion
# less where there are more of them; 100 kB a second are left for what every round has, told anything or
# not.
BYTES_PER_SECOND_MAX: Final = 900_000
# A round takes some milliseconds of the event loop at most.
_SLOTS_MAX: Final = 1000
# What was saved while there was little to tell: after the exchange was gone for long, much is.
_BURST_SECONDS: Final = 1.0

# A start waits so long for what the others have told; then it goes on without, and says so.
_CATCH_UP_SECONDS: Final = 2.0
_LEAVE_SECONDS: Final = 0.5
_ADOPTION_SECONDS: Final = 1.0
# A wall clock is read in whole milliseconds, and drifts by less than this from one round to the next.
_READING_MS_MAX: Final = 2.0
# After an outage the others come back within this time, a pause of their breaker and a swap that fails:
# until then there may be more than are known of.
_RETURN_SECONDS: Final = 1.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Testimony = Callable[[str], Awaitable[tuple[int, Counted]]]
"""What the store has kept of a node, and the deletion epoch it is of. Raises as a store does."""


class Rounds:
    """Carries a cluster's bulletins. `now_ms` is the wall clock, rounded up."""

    def __init__(
        self,
        cluster: Cluster,
        statistics: Statistics,
        exchange: Exchange,
        now_ms: Callable[[], int],
        testimony: Testimony,
    ) -> None:
        self._cluster = cluster
        self._statistics = statistics
        self._exchange = exchange
        self._now_ms = now_ms
        self._testimony = testimony
        self._breaker = Breaker(monotonic)
        self._allowance_bytes = 0.0
        self._allowed_at = monotonic()
        self._adopting: asyncio.Task[None] | None = None
        self._offset_ms: float | None = None
        """How far the wall clock was ahead of the monotonic one, give or take `_doubt_ms`."""
        self._doubt_ms = 0.0
        self._sure_at = 0.0
        self._rewinds = 0
        self._is_abreast = False
        """Whether all there was to hear has been heard."""
        self._unreadable: set[str] = set()
        """What was wrong with bulletins, said once."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the exchange does not answer."""
        return self._breaker.is_open

    def rewind(self) -> None:
        """Hear again what was told, as what was heard of it is forgotten."""
        self._exchange.rewind()
        self._rewinds += 1
        self._is_abreast = False
        self._note()

    async def catch_up(self) -> None:
        """Hear what was told before this node came, if that can be had soon."""
        ends = monotonic() + _CATCH_UP_SECONDS
        # A round is not cut short: what it has heard is to be heard to the end.
        while not await self.round() and monotonic() < ends:
            pass

    async def run(self) -> None:
        """Go round for ever."""
        while True:
            started = monotonic()
            try:
                round_seconds = await self.round()
            except Exception:
                # Whatever it is, the next round may go well, and nobody else is the worse for it.
                log.exception("round_failed")
                round_seconds = ROUND_SECONDS
            if round_seconds:
                await asyncio.sleep(max(started + round_seconds - monotonic(), round_seconds / 4))

    async def leave(self) -> None:
        """Tell what is left, and that it was the last."""
        if self._adopting is not None:
            self._adopting.cancel()
        with contextlib.suppress(TimeoutError, ExchangeFailed):
            async with asyncio.timeout(_LEAVE_SECONDS):
                is_last = False
                while not is_last and not self._breaker.is_open:
                    telling = self._cluster.bulletin(self._now_ms(), _SLOTS_MAX)
                    is_last = not telling.taken
                    if is_last:
                        telling = telling.as_last()
                    heard = await self._exchange.swap(telling.bulletin.encode())
                    if heard.has_lost:
                        self._cluster.tell_all()
                        is_last = False
        await self._exchange.close()

    async def round(self) -> float:
        """One exchange; after how many seconds the next one is due, 0 where there is more to hear."""
        if not self._breaker.allows:
            self._note()
            return self._round_seconds
        self._watch_clock()
        rewinds, slots_max = self._rewinds, self._slots_max()
        telling = self._cluster.bulletin(self._now_ms(), slots_max)
        message = telling.bulletin.encode()
        if any(telling.taken.values()):
            self._allowance_bytes -= len(message)
        told_ms, began = self._now_ms(), monotonic()
        try:
            heard = await self._exchange.swap(message)
        except ExchangeFailed as error:
            self._fail(telling, str(error))
            return self._round_seconds
        except BaseException:
            self._cluster.note_untold(telling)
            raise
        width_ms = (monotonic() - began) * 1000
        self._cluster.note_told(telling)
        ahead_ms = told_ms + width_ms / 2 - heard.exchange_ms
        if self._cluster.note_clock(ahead_ms, width_ms, self._now_ms()):
            self.rewind()
        if self._breaker.is_open:
            log.info("exchange_answers_again")
            self._cluster.listening_since_ms = self._now_ms()
            self._note_gap()
        self._breaker.succeed()
        await self._take_in(heard)
        if not heard.has_more and rewinds == self._rewinds:
            self._is_abreast = True
            self._cluster.abreast_ms = told_ms
        self._note()
        if heard.has_more:
            return 0
        is_behind = sum(map(len, telling.taken.values())) == slots_max > 0
        return self._round_seconds * (_BEHIND_PART if is_behind else 1)

    @property
    def _nodes(self) -> int:
        freshness = self._statistics.freshness
        return 1 if freshness is None else freshness.nodes

    @property
    def _round_seconds(self) -> float:
        return ROUND_SECONDS * max(self._nodes / ROUND_NODES, 1)

    def _slots_max(self) -> int:
        now = monotonic()
        per_second = BYTES_PER_SECOND_MAX / (self._nodes + 2)
        earned = (now - self._allowed_at) * per_second
        self._allowed_at = now
        self._allowance_bytes = min(self._allowance_bytes + earned, per_second * _BURST_SECONDS)
        return _SLOTS_MAX if self._allowance_bytes > 0 else 0

    def _watch_clock(self) -> None:
        """Notice that the wall clock was set, before anything more is said by it."""
        before, now_ms, after = monotonic(), self._now_ms(), monotonic()
        offset_ms, doubt_ms = now_ms - before * 1000, (after - before) * 1000 + _READING_MS_MAX
        if self._offset_ms is not None and abs(offset_ms - self._offset_ms) > doubt_ms + self._doubt_ms:
            self._cluster.note_step(now_ms)
        self._offset_ms, self._doubt_ms = offset_ms, doubt_ms

    def _fail(self, telling: Telling, reason: str) -> None:
        self._cluster.note_untold(telling)
        was_open = self._breaker.is_open
        self._breaker.fail()
        if self._breaker.is_open and not was_open:
            log.warning("exchange_does_not_answer", reason=reason)
        self._note()

    async def _take_in(self, heard: Heard) -> None:
        if heard.has_lost:
            log.warning("exchange_has_lost_what_was_told")
            self._note_gap()
            self._cluster.tell_all()
        for message in heard.messages:
            try:
                self._cluster.hear(Bulletin.decode(message), self._now_ms())
            except Unreadable as error:
                self._note_unreadable(str(error))
            except Exception:
                # What the others tell is heard all the same.
                log.exception("bulletin_not_taken_in")
                self._cluster.note_unreadable(self._now_ms())
            await asyncio.sleep(0)
        self._cluster.hear_early(self._now_ms())
        vanished = self._cluster.vanished(self._now_ms())
        if vanished and self._is_abreast and (self._adopting is None or self._adopting.done()):
            self._adopting = asyncio.create_task(self._adopt(vanished[0]))

    async def _adopt(self, node: str) -> None:
        """Have the store tell of a node that does not tell any more."""
        asked_ms = self._now_ms()
        try:
            epoch, counted = await self._testimony(node)
        except (StoreRefused, StoreFailed) as error:
            log.warning("node_not_adopted", node=node, reason=str(error))
            await asyncio.sleep(_ADOPTION_SECONDS)
        else:
            if self._cluster.adopt(node, epoch, counted, asked_ms):
                log.info("node_adopted", node=node)

    def _note_unreadable(self, reason: str) -> None:
        self._cluster.note_unreadable(self._now_ms())
        if reason not in self._unreadable and len(self._unreadable) < 100:
            self._unreadable.add(reason)
            log.warning("bulletin_unreadable", reason=reason)

    def _note_gap(self) -> None:
        self._sure_at = monotonic() + _RETURN_SECONDS

    def _note(self) -> None:
        # Nobody is forgotten by a clock that was set just now.
        self._watch_clock()
        now_ms = self._now_ms()
        is_cut_off = self._breaker.is_open or not self._is_abreast or monotonic() < self._sure_at
        if not is_cut_off:
            self._cluster.forget(now_ms)
        self._statistics.note(self._cluster.freshness(now_ms, is_cut_off=is_cut_off))
