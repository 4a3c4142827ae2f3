"""One node or several: where what this process counts goes, and what else is counted."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from app.core.transaction import Row
from app.core.window import Part, Shape
from app.core.windows import Counted
from app.exchange.base import Exchange
from app.ledger.cluster import Cluster
from app.ledger.condition import Condition, Dependency, NodeCondition
from app.ledger.measures import Cooperation
from app.ledger.peer import Source
from app.ledger.rounds import Rounds
from app.ledger.statistics import Statistics
from app.store.base import Store, Tally

# After the clock was set back, rows lie ahead of it. The ring grows to hold them, up to this far.
REFILL_AHEAD_MS_MAX: Final = 3_600_000


class Membership(NamedTuple):
    """That this is one node of several."""

    node: str
    exchange: Exchange
    shares_store: bool = False
    """Whether other nodes keep their rows in the same store."""


class Nodes(Protocol):
    """What the ledger asks, whether or not there are others."""

    @property
    def is_skewed(self) -> bool:
        """Whether this node's clock cannot be gone by."""

    @property
    def is_clock_doubtful(self) -> bool:
        """Whether this node's clock may be wrong, for all that is known."""

    def dependencies(self) -> list[Dependency]:
        """What other nodes are known through."""

    def others(self) -> list[NodeCondition] | None:
        """How the others are; None where there cannot be any."""

    def cooperation(self) -> Cooperation | None:
        """How this node and the others get on, in numbers; None where there cannot be any."""

    def count(self, rows: Sequence[Row]) -> None:
        """Count rows that this node has kept."""

    def begin_epoch(self, epoch: int) -> None:
        """Forget what was kept before the deletion that began this epoch."""

    def restart(self, shape: Shape, epoch: int, tallies: Sequence[Tally]) -> None:
        """Count anew, from what the store has kept."""

    async def open(self) -> None:
        """Hear what the others have counted, if that can be had soon; from then on, keep hearing."""

    async def close(self) -> None:
        """Tell the others what is left, and leave."""


class Alone:
    """What this process counts is all there is."""

    is_skewed = False
    is_clock_doubtful = False

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def dependencies(self) -> list[Dependency]:
        """None."""
        return []

    def others(self) -> list[NodeCondition] | None:
        """There are none."""
        return None

    def cooperation(self) -> Cooperation | None:
        """There are none."""
        return None

    def count(self, rows: Sequence[Row]) -> None:
        """Count them."""
        self._statistics.record(rows)

    def begin_epoch(self, epoch: int) -> None:
        """Forget everything."""
        self._statistics.restart(self._statistics.windows.shape)

    def restart(self, shape: Shape, epoch: int, tallies: Sequence[Tally]) -> None:
        """Count them."""
        self._statistics.restart(shape)
        self._statistics.add(_counted(tallies))

    async def open(self) -> None:
        """There is nobody to be heard."""

    async def close(self) -> None:
        """There is nobody to be told."""


class OneOfSeveral:
    """What this process counts is told to others, and what they tell is counted."""

    def __init__(
        self,
        membership: Membership,
        store: Store,
        store_identity: bytes,
        shape: Shape,
        statistics: Statistics,
        now_ms: Callable[[], int],
        on_epoch: Callable[[int], None],
    ) -> None:
        """`on_epoch` is called with a deletion epoch that another node has begun."""
        self._store = store
        self._shape = shape
        self._statistics = statistics
        self._now_ms = now_ms
        self.cluster = Cluster(
            Source(membership.node, store_identity),
            shape,
            statistics,
            on_epoch,
            is_alone=not membership.shares_store,
        )
        self.rounds = Rounds(self.cluster, statistics, membership.exchange, now_ms, self._testimony)
        self._task: asyncio.Task[None] | None = None

    @property
    def is_skewed(self) -> bool:
        """Whether this node's clock is too far from most others'."""
        return self.cluster.is_outvoted

    @property
    def is_clock_doubtful(self) -> bool:
        """Whether it is too far from any, or how far it is was not measured since it was set."""
        return self.cluster.is_skewed or not self.cluster.is_measured

    def dependencies(self) -> list[Dependency]:
        """The exchange, and clocks that agree."""
        exchange, clock = (
            Dependency("exchange", Condition.HEALTHY),
            Dependency("clock", Condition.HEALTHY),
        )
        if self.rounds.is_cut_off:
            detail = "does not answer: what other nodes count is not known"
            exchange = exchange._replace(condition=Condition.DEGRADED, detail=detail)
        elif self.cluster.is_unread(self._now_ms()):
            detail = "a node tells what cannot be counted here: the log says which, and why"
            exchange = exchange._replace(condition=Condition.DEGRADED, detail=detail)
        elif self._statistics.freshness is not None and self._statistics.freshness.is_degraded:
            detail = "a node has gone without a word: some of what it counted may be missing"
            exchange = exchange._replace(condition=Condition.DEGRADED, detail=detail)
        if self.is_skewed:
            detail = f"differs from most other nodes' by {self.cluster.skew_ms:.0f} ms"
            clock = clock._replace(condition=Condition.UNHEALTHY, detail=detail)
        elif self.cluster.is_skewed:
            detail = f"differs from the exchange's by {self.cluster.ahead_ms:.0f} ms"
            clock = clock._replace(condition=Condition.DEGRADED, detail=detail)
        return [exchange, clock]

    def others(self) -> list[NodeCondition] | None:
        """How they are."""
        return self.cluster.conditions(self._now_ms())

    def cooperation(self) -> Cooperation | None:
        """What is known of the exchange, of the clocks and of each other node."""
        now_ms, freshness = self._now_ms(), self._statistics.freshness
        exchange, _ = self.dependencies()
        return Cooperation(
            exchange.condition,
            1 if freshness is None else freshness.nodes,
            0 if freshness is None else freshness.lag_ms(now_ms),
            self.cluster.skew_ms,
            self.cluster.conditions(now_ms),
        )

    def count(self, rows: Sequence[Row]) -> None:
        """Count them, and tell."""
        self.cluster.count(self._statistics.record(rows))

    def begin_epoch(self, epoch: int) -> None:
        """Forget what was of the store's earlier epochs, whoever has counted it."""
        self.cluster.begin_epoch(epoch)

    def restart(self, shape: Shape, epoch: int, tallies: Sequence[Tally]) -> None:
        """Count what the store has of every node, and hear again what they have told."""
        self._shape = shape
        self.cluster.restart(shape, epoch, _counted_by_node(tallies))
        self.rounds.rewind()

    async def open(self) -> None:
        """Catch up, and go round from then on."""
        await self.rounds.catch_up()
        self._task = asyncio.create_task(self.rounds.run())

    async def close(self) -> None:
        """Take leave."""
        if self._task is not None:
            self._task.cancel()
            # The exchange is one caller's at a time.
            await asyncio.wait((self._task,))
        await self.rounds.leave()

    async def _testimony(self, node: str) -> tuple[int, Counted]:
        now_ms = self._now_ms()
        resolution_ms = self._shape.resolution_ms
        # What a slot holds is told whole or not at all.
        from_ms = (now_ms - self._shape.window_ms) // resolution_ms * resolution_ms
        to_ms = now_ms + REFILL_AHEAD_MS_MAX
        epoch, tallies = await self._store.tally(from_ms, to_ms, resolution_ms, node)
        return epoch, _counted_by_node(tallies).get(node, {})


def _counted(tallies: Iterable[Tally]) -> Counted:
    counted: defaultdict[str, list[Part]] = defaultdict(list)
    for currency, slot_ms, summary, _ in tallies:
        counted[currency].append(
            (slot_ms, summary.count, summary.sum_units, summary.min_units, summary.max_units)
        )
    return counted


def _counted_by_node(tallies: Iterable[Tally]) -> Mapping[str | None, Counted]:
    by_node: defaultdict[str | None, list[Tally]] = defaultdict(list)
    for tally in tallies:
        by_node[tally.node].append(tally)
    return {node: _counted(of_node) for node, of_node in by_node.items()}
