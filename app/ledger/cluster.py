"""What several nodes have counted, put together: no clock, no network, nothing that waits.

Each node's slots are known by the node, the store that keeps its rows, and that store's deletion epoch.
Within an epoch the count of a slot only grows, so of two tellings the one that counts more is the later
one; nothing is counted twice, whatever is lost, repeated, late or out of order. A node that starts again
from its store goes on where it was. What a store says of a node's rows is one more telling, and lets a
node that starts late, or that has outlived another, take in what nobody tells any more.

How large this is: for each node and currency a Window, so a few MB where it is dense; what is answered
is the total, which takes as long as one node's alone.
"""

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Final, NamedTuple

import msgspec

from app.core.bulletin import BULLETIN_VERSION, Bulletin, Slots, Unreadable
from app.core.window import SLOTS_PER_SPAN, Part, Shape
from app.core.windows import Counted, Windows
from app.ledger.clock_offset import ClockOffset
from app.ledger.condition import Condition, NodeCondition
from app.ledger.early import Early
from app.ledger.peer import SILENT_MS_MAX, Peer, Source
from app.ledger.statistics import Freshness, Statistics
from app.ledger.unsaid import Unsaid

# A clock that is further from most others' than this moves the edges of the window by too much.
SKEW_MS_MAX: Final = 500
# The ring has room for more than this beyond the latest time that is taken in: see Shape.rewind_ms.
_AHEAD_MS_MAX: Final = 2 * SKEW_MS_MAX

_CONDITION: Final = {False: Condition.HEALTHY, True: Condition.DEGRADED}


class Cluster:
    """One node's view of all: `statistics` has what is counted of every one of them.

    `is_alone`: no other node keeps rows in this one's store, which may be opened under another name.
    `on_epoch` is called with a deletion epoch of this node's own store that another node has begun.
    """

    def __init__(
        self,
        me: Source,
        shape: Shape,
        statistics: Statistics,
        on_epoch: Callable[[int], None],
        *,
        is_alone: bool = False,
    ) -> None:
        self.me = me
        self._is_alone = is_alone
        self._shape = shape
        self.statistics = statistics
        self._on_epoch = on_epoch
        self._own = Windows(shape)
        self._unsaid = Unsaid()
        self._peers: dict[Source, Peer] = {}
        self._epochs: dict[bytes, int] = {}
        """The newest epoch known of each store."""
        self._offset = ClockOffset()
        self._was_skewed = False
        self._is_in_doubt = False
        """Whether the exchange has failed since it was last told anything."""
        self.listening_since_ms = 0
        """Since when the others could be heard."""
        self.abreast_ms = 0
        """When all that there was to hear was heard. Whoever came since is not known of."""
        self._unreadable_ms = 0
        self._began_ms = 0
        """When it first told anything."""
        self._early: Early[tuple[Source, int]] = Early()

    def count(self, counted: Counted) -> None:
        """This node has counted something, which is in the total already."""
        self._own.add(counted)
        resolution_ms = self._shape.resolution_ms
        for currency, parts in counted.items():
            self._unsaid.note(currency, (ms - ms % resolution_ms for ms, *_ in parts))

    def restart(self, shape: Shape, epoch: int, kept: Mapping[str | None, Counted]) -> None:
        """Begin anew from what the store has kept, by node; None is this one, alone with its store.

        What is known of others stays known: the exchange may have lost it since.
        """
        is_same = self._epochs.get(self.me.store) == epoch
        self._shape = shape
        self._epochs[self.me.store] = epoch
        self._own.restart(shape)
        self._unsaid.clear()
        self.statistics.restart(shape)
        for peer in self._peers.values():
            known, peer.windows, peer.complete_ms = peer.windows, Windows(shape), 0
            if is_same or peer.source.store != self.me.store:
                self._lift(peer, {code: known.parts(code) for code in known.currencies})
        for node, counted in kept.items():
            if node in (None, self.me.node):
                self._own.add(counted)
                self.statistics.add(counted)
            else:
                self._lift(self._peer(Source(node, self.me.store)), counted)
        self.tell_all()

    def begin_epoch(self, epoch: int) -> None:
        """Forget everything of this node's own store that was counted before."""
        self._begin_epoch(self.me.store, epoch)

    def bulletin(self, now_ms: int, slots_max: int) -> "Telling":
        """What is to be told next, of at most so many slots."""
        self._began_ms = self._began_ms or now_ms
        resolution_ms = self._shape.resolution_ms
        taken = self._unsaid.take(now_ms, slots_max)
        slots = []
        for currency, slots_ms in taken.items():
            held = (self._own.at(currency, slot_ms) for slot_ms in slots_ms)
            parts = [part for part in held if part is not None]
            if parts:
                slots.append(Slots.of(currency, parts, resolution_ms))
        complete_ms = self._unsaid.complete_then_ms
        # Before anything has shown how far this clock is ahead, no instant of it says anything;
        # an exchange that has failed may have lost what was told before; and who has started by a clock
        # that is wrong may not have read back what the others still ask for.
        is_sure = complete_ms and self.is_measured and not self._is_in_doubt and not self.is_skewed
        bulletin = Bulletin(
            version=BULLETIN_VERSION,
            node=self.me.node,
            store=self.me.store,
            is_alone=self._is_alone,
            epoch=self._epochs.get(self.me.store, 0),
            window_ms=self._shape.window_ms,
            resolution_ms=resolution_ms,
            told_ms=now_ms,
            complete_ms=complete_ms - self._offset.doubt_ms if is_sure else 0,
            ahead_ms=self.ahead_ms,
            is_last=False,
            slots=slots,
        )
        return Telling(bulletin, taken, complete_ms)

    def note_told(self, telling: "Telling") -> None:
        """It was told."""
        # Unless what was said was taken back meanwhile.
        self._unsaid.complete_ms = min(telling.complete_ms, self._unsaid.complete_then_ms)
        self._is_in_doubt = False

    def note_untold(self, telling: "Telling") -> None:
        """It may not have been told."""
        self._is_in_doubt = True
        if telling.bulletin.epoch == self._epochs.get(self.me.store, 0):
            self._unsaid.put_back(telling.taken)

    def tell_all(self) -> None:
        """Tell everything once more: what was told is lost, or was not believed."""
        self._unsaid.take_back()
        for currency in self._own.currencies:
            self._unsaid.note(currency, (part[0] for part in self._own.parts(currency)))

    def note_clock(self, ahead_ms: float, width_ms: float, now_ms: int) -> bool:
        """An exchange has shown that this clock is so far ahead of the exchange's, give or take.

        True where this clock could not be gone by, and can be again: what lay too far ahead of it to be
        taken in is to be heard once more.
        """
        if self._offset.contradicts(ahead_ms, width_ms):
            self.note_step(now_ms)
        self._offset.note(ahead_ms, width_ms)
        was_skewed, self._was_skewed = self._was_skewed, self.is_skewed
        is_mended = was_skewed and not self._was_skewed
        if is_mended:
            self.tell_all()
        return is_mended

    def note_step(self, now_ms: int) -> None:
        """This clock, or the exchange's, was set: what was said by it before says nothing now."""
        self._offset.forget()
        self.listening_since_ms = now_ms
        self.abreast_ms = 0
        for peer in self._peers.values():
            peer.complete_ms = 0
            if peer.heard_ms is not None:
                peer.heard_ms = min(peer.heard_ms, now_ms)

    @property
    def is_measured(self) -> bool:
        """Whether anything has shown how far this node's clock is ahead."""
        return self._offset.is_measured

    @property
    def ahead_ms(self) -> float:
        """How far this node's clock is ahead of the exchange's."""
        return self._offset.ahead_ms

    @property
    def skew_ms(self) -> float:
        """How far this node's clock is ahead of most others'; the exchange's is one of them."""
        aheads = [peer.ahead_ms for peer in self._peers.values() if peer.heard_ms is not None]
        return self.ahead_ms - median((0.0, self.ahead_ms, *aheads))

    @property
    def is_skewed(self) -> bool:
        """Whether this node's clock cannot be gone by."""
        return abs(self.skew_ms) > SKEW_MS_MAX

    @property
    def is_outvoted(self) -> bool:
        """Whether other nodes say so: of two clocks, its own and the exchange's, either may be right."""
        return self.is_skewed and any(peer.heard_ms is not None for peer in self._peers.values())

    def hear(self, bulletin: Bulletin, now_ms: int) -> None:
        """Take in what a node tells. Raises Unreadable."""
        if bulletin.store == self.me.store and (self._is_alone or bulletin.node == self.me.node):
            self._check_copy(bulletin)
            return
        source = Source("" if bulletin.is_alone else bulletin.node, bulletin.store)
        shape = self._shape
        if (bulletin.window_ms, bulletin.resolution_ms) != (shape.window_ms, shape.resolution_ms):
            raise Unreadable(f"node {bulletin.node!r} has a window of {bulletin.window_ms} ms")
        counted = self._readable(bulletin)
        if bulletin.epoch > self._epochs.get(source.store, -1):
            self._learn_epoch(source.store, bulletin.epoch)
        peer = self._peer(source)
        peer.name = bulletin.node
        # By its own clock, so that what lay in the exchange for long is not taken for fresh.
        by_this_clock_ms = self.ahead_ms - bulletin.ahead_ms
        peer.heard_ms = max(peer.heard_ms or 0, min(now_ms, round(bulletin.told_ms + by_this_clock_ms)))
        complete_ms = round(bulletin.complete_ms + by_this_clock_ms) - self._offset.doubt_ms
        # It may have been later: whoever tells everything once more takes back what it said of it.
        peer.complete_ms = max(min(now_ms, complete_ms), 0)
        peer.ahead_ms = bulletin.ahead_ms
        peer.has_left = bulletin.is_last
        peer.attested_ms = None
        if bulletin.epoch == self._epochs[source.store]:
            teller = source, bulletin.epoch
            self._lift(peer, self._early.sift(teller, counted, self._latest_ms(now_ms)))

    def _check_copy(self, bulletin: Bulletin) -> None:
        """Raises Unreadable where another node has a copy of the store that this one has alone."""
        if bulletin.node == self.me.node or not self._began_ms:
            return
        # What this node told under another name it told before it was started under this one.
        told_ms = bulletin.told_ms + self.ahead_ms - bulletin.ahead_ms
        if told_ms > self._began_ms + SILENT_MS_MAX:
            raise Unreadable(f"node {bulletin.node!r} has a copy of this node's store")

    def hear_early(self, now_ms: int) -> None:
        """Take in what was too early when it was told, and is not any more."""
        for (source, epoch), currency, part in self._early.due(self._latest_ms(now_ms)):
            if epoch == self._epochs.get(source.store):
                self._lift(self._peer(source), {currency: [part]})

    def _latest_ms(self, now_ms: int) -> int:
        # What lies so far ahead that the ring would lose its other end to it is too early.
        return now_ms + self._shape.ahead_ms + _AHEAD_MS_MAX

    def note_unreadable(self, now_ms: int) -> None:
        """Somebody tells what this node cannot read."""
        self._unreadable_ms = now_ms

    def is_unread(self, now_ms: int) -> bool:
        """Whether somebody has lately told what this node cannot read."""
        return now_ms - self._unreadable_ms <= SILENT_MS_MAX

    def adopt(self, node: str, epoch: int, counted: Counted, asked_ms: int) -> bool:
        """Take in what this node's own store, asked then, has kept of another node, in an epoch.

        Whether that is the first it tells of that node since the node was heard.
        """
        store = self.me.store
        if epoch > self._epochs.get(store, 0):
            self._learn_epoch(store, epoch)
        if epoch < self._epochs.get(store, 0):
            return False
        peer = self._peer(Source(node, store))
        self._lift(peer, counted)
        is_first, peer.attested_ms = peer.attested_ms is None, asked_ms
        return is_first

    def vanished(self, now_ms: int) -> list[str]:
        """Nodes that left without a word, and whose rows this node's store can tell of."""
        return [
            peer.source.node
            for peer in self._peers.values()
            if peer.is_silent(now_ms, self.listening_since_ms)
            and not peer.is_attested(now_ms)
            and peer.source.store == self.me.store
        ]

    def freshness(self, now_ms: int, *, is_cut_off: bool) -> Freshness:
        """How much is known; `is_cut_off` where not all can be heard."""
        nodes, is_missing = 1, is_cut_off or self.is_skewed or self.is_unread(now_ms)
        known_ms = [self.abreast_ms]
        for peer in self._peers.values():
            if peer.heard_ms is None or peer.has_left:
                continue
            if is_cut_off or not peer.is_silent(now_ms, self.listening_since_ms):
                nodes += 1
                known_ms.append(peer.complete_ms)
            elif peer.attested_ms is not None:
                known_ms.append(peer.attested_ms)
            else:
                is_missing = True
        # What is older than the window is missed by nobody.
        complete_ms = max(min(known_ms), now_ms - self._shape.window_ms)
        return Freshness(nodes, complete_ms, is_missing)

    def forget(self, now_ms: int) -> None:
        """Forget those who were heard so long ago that nothing they told lies in the window."""
        shape = self._shape
        span_ms = SLOTS_PER_SPAN * shape.resolution_ms
        oldest_ms = now_ms - shape.window_ms - shape.ahead_ms - shape.rewind_ms_max - span_ms
        gone = [
            peer
            for peer in self._peers.values()
            if peer.heard_ms is not None and max(peer.heard_ms, self.listening_since_ms) < oldest_ms
        ]
        for peer in gone:
            del self._peers[peer.source]
        stores = {self.me.store, *(source.store for source in self._peers)}
        self._epochs = {store: epoch for store, epoch in self._epochs.items() if store in stores}
        # Should it tell the same again, it must not be counted twice.
        if not all(self.statistics.windows.is_past(peer.windows) for peer in gone):
            self.count_anew()

    def conditions(self, now_ms: int) -> list[NodeCondition]:
        """How the others are that were heard of and have not taken leave, by name."""
        found = [
            NodeCondition(
                peer.name,
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
            self.statistics.add(added)

    def _readable(self, bulletin: Bulletin) -> Counted:
        """What it tells. Raises Unreadable, and nothing is taken in."""
        counted: dict[str, list[Part]] = {}
        for slots in bulletin.slots:
            parts = list(slots.parts(bulletin.resolution_ms))
            if slots.currency in counted or len({part[0] for part in parts}) < len(parts):
                raise Unreadable("a slot is told twice")
            counted[slots.currency] = parts
        return counted

    def _learn_epoch(self, store: bytes, epoch: int) -> None:
        if store == self.me.store:
            # Comes back by way of `begin_epoch`.
            self._on_epoch(epoch)
        else:
            self._begin_epoch(store, epoch)

    def _begin_epoch(self, store: bytes, epoch: int) -> None:
        known = self._epochs.get(store)
        if known is not None and epoch <= known:
            return
        self._epochs[store] = epoch
        if known is None:
            return
        if store == self.me.store:
            self._own.restart(self._shape)
            self._unsaid.clear()
        for peer in self._peers.values():
            if peer.source.store == store:
                peer.windows.restart(self._shape)
        self.count_anew()

    def count_anew(self) -> None:
        """Add up anew what is known of all."""
        self.statistics.restart(self._shape)
        for windows in self._all():
            self.statistics.add({code: windows.parts(code) for code in windows.currencies})

    def _all(self) -> Iterator[Windows]:
        yield self._own
        for peer in self._peers.values():
            yield peer.windows


class Telling(NamedTuple):
    """A bulletin, and the slots it was made of."""

    bulletin: Bulletin
    taken: dict[str, list[int]]
    complete_ms: int
    """Whatever was counted by then is told with it, by this node's clock."""

    def as_last(self) -> "Telling":
        """The same, and that nothing comes after it."""
        return self._replace(bulletin=msgspec.structs.replace(self.bulletin, is_last=True))
