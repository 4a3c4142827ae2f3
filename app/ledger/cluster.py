"""What several nodes have counted, put together: no clock, no network, nothing that waits.

Each node's slots are known by the node, the store that keeps its rows, and that store's deletion epoch.
Within an epoch the count of a slot only grows, so of two tellings the one that counts more is the later
one; nothing is counted twice, whatever is lost, repeated, late or out of order. A node that starts again
from its store goes on where it was. What a store says of a node's rows is one more telling, and lets a
node that starts late, or that has outlived another, take in what nobody tells any more.

How large this is: for each node and currency a Window, so a few MB where it is dense; what is answered
is the total, which takes as long as one node's alone.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Final, NamedTuple

import msgspec

from app.core.bulletin import BULLETIN_VERSION, Bulletin, Slots, Unreadable
from app.core.window import Shape
from app.core.windows import Counted, Windows
from app.ledger.condition import Condition, NodeCondition
from app.ledger.statistics import Freshness, Statistics
from app.ledger.unsaid import Unsaid

# Who has said nothing for so long, while others were heard, has vanished.
SILENT_MS_MAX: Final = 3000
# A clock that is further from most others' than this moves the edges of the window by too much.
SKEW_MS_MAX: Final = 500
# The ring has room for more than this beyond the latest time that is taken in: see Shape.rewind_ms.
_AHEAD_MS_MAX: Final = 2 * SKEW_MS_MAX
# How far the clock is ahead is what the quickest of so many exchanges has shown.
_SAMPLES: Final = 64

_CONDITION: Final = {False: Condition.HEALTHY, True: Condition.DEGRADED}


class Source(NamedTuple):
    """Who counted something, and where its rows are."""

    node: str
    store: bytes


class Peer:
    """What is known of another node."""

    def __init__(self, source: Source, shape: Shape) -> None:
        self.source = source
        self.windows = Windows(shape)
        self.heard_ms: int | None = None
        """When it was last heard, by this node's clock; None where only its store has told of it."""
        self.complete_ms = 0
        """Up to when it has told everything, by this node's clock."""
        self.ahead_ms = 0.0
        self.has_left = False
        self.is_whole = False
        """Whether the store has told of it since it was last heard: nothing it counted is missing."""

    def is_silent(self, now_ms: int, listening_since_ms: int) -> bool:
        """Whether it has vanished without a word, as far as it could have been heard."""
        if self.has_left or self.heard_ms is None:
            return False
        return now_ms - max(self.heard_ms, listening_since_ms) > SILENT_MS_MAX


class Cluster:
    """One node's view of all: `statistics` has what is counted of every one of them.

    `on_epoch` is called with a deletion epoch of this node's own store that another node has begun.
    """

    def __init__(
        self, me: Source, shape: Shape, statistics: Statistics, on_epoch: Callable[[int], None]
    ) -> None:
        self.me = me
        self._shape = shape
        self._statistics = statistics
        self._on_epoch = on_epoch
        self._own = Windows(shape)
        self._unsaid = Unsaid()
        self._peers: dict[Source, Peer] = {}
        self._epochs: dict[bytes, int] = {}
        """The newest epoch known of each store."""
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)
        self._was_skewed = False
        self.listening_since_ms = 0
        """Since when the others could be heard."""

    def count(self, counted: Counted) -> None:
        """This node has counted something, which is in the total already."""
        self._own.add(counted)
        resolution_ms = self._shape.resolution_ms
        for currency, parts in counted.items():
            self._unsaid.note(currency, (ms - ms % resolution_ms for ms, *_ in parts))

    def restart(self, shape: Shape, epoch: int, kept: Mapping[str | None, Counted]) -> None:
        """Begin anew from what the store has kept, by node; None is this one, alone with its store."""
        self._shape = shape
        self._epochs = {self.me.store: epoch}
        self._peers.clear()
        self._own.restart(shape)
        self._unsaid.clear()
        self._statistics.restart(shape)
        for node, counted in kept.items():
            if node in (None, self.me.node):
                self._own.add(counted)
                self._statistics.add(counted)
            else:
                self._lift(self._peer(Source(node, self.me.store)), counted)
        self.tell_all()

    def begin_epoch(self, epoch: int) -> None:
        """Forget everything of this node's own store that was counted before."""
        self._begin_epoch(self.me.store, epoch)

    def bulletin(self, now_ms: int, slots_max: int) -> "Telling":
        """What is to be told next, of at most so many slots."""
        resolution_ms = self._shape.resolution_ms
        taken = self._unsaid.take(now_ms, slots_max)
        slots = []
        for currency, slots_ms in taken.items():
            held = (self._own.at(currency, slot_ms) for slot_ms in slots_ms)
            parts = [part for part in held if part is not None]
            if parts:
                slots.append(Slots.of(currency, parts, resolution_ms))
        complete_ms = self._unsaid.complete_then_ms
        bulletin = Bulletin(
            version=BULLETIN_VERSION,
            node=self.me.node,
            store=self.me.store,
            epoch=self._epochs.get(self.me.store, 0),
            window_ms=self._shape.window_ms,
            resolution_ms=resolution_ms,
            told_ms=now_ms,
            complete_ms=complete_ms,
            ahead_ms=self.ahead_ms,
            is_last=False,
            slots=slots,
        )
        return Telling(bulletin, taken)

    def note_told(self, telling: "Telling") -> None:
        """It was told."""
        self._unsaid.complete_ms = telling.bulletin.complete_ms

    def note_untold(self, telling: "Telling") -> None:
        """It may not have been told."""
        if telling.bulletin.epoch == self._epochs.get(self.me.store, 0):
            self._unsaid.put_back(telling.taken)

    def tell_all(self) -> None:
        """Tell everything once more: what was told is lost, or was not believed."""
        for currency in self._own.currencies:
            self._unsaid.note(currency, (part[0] for part in self._own.parts(currency)))

    def note_clock(self, ahead_ms: float, width_ms: float) -> None:
        """An exchange has shown that this clock is so far ahead of the exchange's, give or take."""
        self._samples.append((width_ms, ahead_ms))
        is_skewed = self.is_skewed
        if self._was_skewed and not is_skewed:
            self.tell_all()
        self._was_skewed = is_skewed

    @property
    def ahead_ms(self) -> float:
        """How far this node's clock is ahead of the exchange's."""
        return min(self._samples)[1] if self._samples else 0.0

    @property
    def skew_ms(self) -> float:
        """How far this node's clock is ahead of most others'; the exchange's is one of them."""
        aheads = [peer.ahead_ms for peer in self._peers.values() if peer.heard_ms is not None]
        return self.ahead_ms - median((0.0, self.ahead_ms, *aheads))

    @property
    def is_skewed(self) -> bool:
        """Whether this node's clock cannot be gone by."""
        return abs(self.skew_ms) > SKEW_MS_MAX

    def hear(self, bulletin: Bulletin, now_ms: int) -> None:
        """Take in what a node tells. Raises Unreadable."""
        source = Source(bulletin.node, bulletin.store)
        if source == self.me:
            return
        shape = self._shape
        if (bulletin.window_ms, bulletin.resolution_ms) != (shape.window_ms, shape.resolution_ms):
            raise Unreadable(f"node {bulletin.node!r} has a window of {bulletin.window_ms} ms")
        counted = self._readable(bulletin, now_ms)
        if bulletin.epoch > self._epochs.get(source.store, -1):
            self._learn_epoch(source.store, bulletin.epoch)
        peer = self._peer(source)
        # By its own clock, so that what lay in the exchange for long is not taken for fresh.
        by_this_clock_ms = self.ahead_ms - bulletin.ahead_ms
        peer.heard_ms = max(peer.heard_ms or 0, min(now_ms, round(bulletin.told_ms + by_this_clock_ms)))
        peer.complete_ms = max(peer.complete_ms, round(bulletin.complete_ms + by_this_clock_ms))
        peer.ahead_ms = bulletin.ahead_ms
        peer.has_left = bulletin.is_last
        peer.is_whole = False
        if bulletin.epoch == self._epochs[source.store]:
            self._lift(peer, counted)

    def adopt(self, node: str, epoch: int, counted: Counted) -> None:
        """Take in what this node's own store has kept of another node, in an epoch."""
        peer = self._peer(Source(node, self.me.store))
        if epoch == self._epochs.get(self.me.store, 0):
            self._lift(peer, counted)
            peer.is_whole = True

    def vanished(self, now_ms: int) -> list[str]:
        """Nodes that left without a word, and whose rows this node's store can tell of."""
        return [
            peer.source.node
            for peer in self._peers.values()
            if peer.is_silent(now_ms, self.listening_since_ms)
            and not peer.is_whole
            and peer.source.store == self.me.store
        ]

    def freshness(self, now_ms: int, *, is_cut_off: bool) -> Freshness:
        """How much is known; `is_cut_off` where nobody can be heard. Forgets whom nobody can miss."""
        window_ms = self._shape.window_ms
        oldest_ms = now_ms - window_ms - self._shape.ahead_ms - self._shape.rewind_ms_max
        present: list[Peer] = []
        is_missing = is_cut_off
        for peer in list(self._peers.values()):
            if peer.heard_ms is None:
                continue
            if peer.heard_ms < oldest_ms and not is_cut_off:
                del self._peers[peer.source]
            elif peer.is_silent(now_ms, self.listening_since_ms) and not is_cut_off:
                is_missing |= not peer.is_whole
            elif not peer.has_left:
                present.append(peer)
        # What is older than the window is missed by nobody.
        complete_ms = min((max(peer.complete_ms, now_ms - window_ms) for peer in present), default=None)
        return Freshness(len(present) + 1, complete_ms, is_missing or self.is_skewed)

    def conditions(self, now_ms: int) -> list[NodeCondition]:
        """How the others are that were heard of and have not taken leave, by name."""
        found = [
            NodeCondition(
                peer.source.node,
                Condition.DEGRADED
                if peer.is_silent(now_ms, self.listening_since_ms)
                else Condition.HEALTHY,
                min(max(now_ms - peer.complete_ms, 0), self._shape.window_ms),
                round(peer.ahead_ms - self.ahead_ms, 1),
            )
            for peer in self._peers.values()
            if peer.heard_ms is not None and not peer.has_left
        ]
        return sorted(found, key=lambda each: each.node)

    def _peer(self, source: Source) -> Peer:
        peer = self._peers.get(source)
        if peer is None:
            peer = self._peers[source] = Peer(source, self._shape)
        return peer

    def _lift(self, peer: Peer, counted: Counted) -> None:
        added = peer.windows.lift(counted)
        if added:
            self._statistics.add(added)

    def _readable(self, bulletin: Bulletin, now_ms: int) -> Counted:
        """What it tells, but for what lies so far ahead that the ring would lose its other end to it."""
        latest_ms = now_ms + self._shape.ahead_ms + _AHEAD_MS_MAX
        return {
            slots.currency: [
                part for part in slots.parts(bulletin.resolution_ms) if part[0] <= latest_ms
            ]
            for slots in bulletin.slots
        }

    def _learn_epoch(self, store: bytes, epoch: int) -> None:
        if store == self.me.store:
            # Comes back by way of `begin_epoch`.
            self._on_epoch(epoch)
        else:
            self._begin_epoch(store, epoch)

    def _begin_epoch(self, store: bytes, epoch: int) -> None:
        is_first = store not in self._epochs
        self._epochs[store] = epoch
        if is_first:
            return
        if store == self.me.store:
            self._own.restart(self._shape)
            self._unsaid.clear()
        for peer in self._peers.values():
            if peer.source.store == store:
                peer.windows.restart(self._shape)
        self._statistics.restart(self._shape)
        for windows in self._all():
            self._statistics.add({code: windows.parts(code) for code in windows.currencies})

    def _all(self) -> Iterator[Windows]:
        yield self._own
        for peer in self._peers.values():
            yield peer.windows


class Telling(NamedTuple):
    """A bulletin, and the slots it was made of."""

    bulletin: Bulletin
    taken: dict[str, list[int]]

    def as_last(self) -> "Telling":
        """The same, and that nothing comes after it."""
        return self._replace(bulletin=msgspec.structs.replace(self.bulletin, is_last=True))
