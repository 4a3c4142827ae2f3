"""Several real ledgers in virtual time, around an exchange and stores that do what the worst ones do.

Everything above the store and the exchange is the service's own: ledger, commit, rounds and the merge. A
node that is killed stops between two steps, wherever it stands. What was kept, when it was counted and
what was told is written down beside it, and is what the answers are held against.
"""

import asyncio
import contextvars
import math
import random
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from enum import Enum
from typing import Any

from app.core.bulletin import Bulletin
from app.core.identifier import IdentifierSource
from app.core.summary import Figures, Summary
from app.core.transaction import Row, Transaction
from app.core.window import Shape
from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger
from app.ledger.nodes import Membership
from app.ledger.reading import NotReady
from app.ledger.statistics import Freshness
from app.store.base import identity
from tests.support.exchange import Faults, MemoryExchange, Stream
from tests.support.shared_store import Disk, Kept, SharedStore
from tests.support.virtual_time import VirtualTimeLoop

START_MS = 1_767_323_045_678
CURRENCIES = ("EUR", "JPY", "USD")
# Pairs of clocks stay well within what is no skew.
SKEW_MS_MAX = 200

_of_node: contextvars.ContextVar["Node | None"] = contextvars.ContextVar("_of_node", default=None)

Slot = tuple[str, int]


class Kind(Enum):
    """Where a node keeps its rows."""

    SHARED = "in a database that others share"
    OWN = "in a file of its own"
    MEMORY = "in memory"


class Node:
    """A node, from one start to the next."""

    def __init__(self, world: "World", name: str, kind: Kind) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.skew_ms = world.choose.uniform(-SKEW_MS_MAX, SKEW_MS_MAX)
        self.disk = world.shared if kind is Kind.SHARED else world.new_disk()
        self.source = name, identity(self.disk.secret)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.clock_set_seconds = -math.inf
        """When its clock was last set."""
        self.is_up = False
        self.is_gone = False
        """Whether it never comes back."""
        self.epoch_min = 0
        """What is of an earlier epoch of its store was deleted by this node itself."""
        self.ledger: Ledger
        self.exchange: MemoryExchange

    def now_ms(self) -> int:
        return int(-(-(self.world.wall_ms() + self.skew_ms) // 1))

    def set_clock(self, by_ms: float) -> None:
        self.skew_ms += by_ms
        self.clock_set_seconds = self.world.loop.time()

    @property
    def is_astray(self) -> bool:
        """Whether its clock is wrong, or was until just now."""
        return abs(self.skew_ms) > SKEW_MS_MAX or self.world.loop.time() < self.clock_set_seconds + 0.5

    async def start(self) -> None:
        world, choose = self.world, self.world.choose
        if self.kind is Kind.MEMORY:
            self.disk = world.new_disk()
            self.source = self.name, identity(self.disk.secret)
            self.epoch_min = 0
        store = SharedStore(self.disk, self.name, choose)
        self.exchange = MemoryExchange(world.stream, choose, world.faults, world.wall_ms)
        self.ledger = Ledger(
            store,
            world.shape,
            IdentifierSource(choose.randrange(2**48)),
            self.now_ms,
            world.failures.append,
            membership=Membership(self.name, self.exchange, shares_store=self.kind is Kind.SHARED),
        )
        # A new node's bulletins are its own from here on: until it is open, it may die.
        self.is_up = await self.task(self._open())

    async def _open(self) -> bool:
        try:
            await self.ledger.open()
        except asyncio.CancelledError:
            return False
        return True

    def task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something as a part of this node, to die with it."""
        context = contextvars.copy_context()
        context.run(_of_node.set, self)
        return self.world.loop.create_task(work, context=context)

    def kill(self) -> None:
        self.is_up = False
        for task in list(self.tasks):
            task.cancel()
        self.tasks.clear()

    async def leave(self) -> None:
        self.is_up = False
        await self.task(self.ledger.close())
        self.kill()

    async def clear(self) -> None:
        """Delete everything that is in its store."""
        before = self.disk.epoch
        if await self.ledger.clear() is Verdict.ACCEPTED:
            self.epoch_min = max(self.epoch_min, before + 1)

    def post(self) -> None:
        choose, world = self.world.choose, self.world
        age_ms = choose.choice((0, 0, choose.randrange(50), choose.randrange(world.shape.window_ms)))
        if choose.random() < 0.1:
            age_ms = -choose.randrange(world.shape.ahead_ms)
        for _ in range(choose.choice((1, 1, 1, 4))):
            amount = choose.choice((choose.randrange(-(10**10), 10**10), 0, 2**63 - 1))
            fact = Transaction(amount, self.now_ms() - age_ms, choose.choice(CURRENCIES), None)
            self.ledger.submit(fact, self._done)

    def _done(self, verdict: Verdict, rows: Sequence[Row]) -> None:
        if verdict is Verdict.ACCEPTED:
            self.world.counted_ms.update((row.id, self.world.wall_ms()) for row in rows)

    def slots(self) -> dict[Slot, Summary]:
        """All that is counted here, by slot."""
        windows = self.ledger.statistics.windows
        return {
            (code, part[0]): Summary(*part[1:])
            for code in windows.currencies
            for part in windows.parts(code)
        }

    @property
    def freshness(self) -> Freshness | None:
        return self.ledger.statistics.freshness

    @property
    def is_answering(self) -> bool:
        """Whether it would answer a question."""
        if not self.is_up:
            return False
        try:
            self.ledger.moment()
        except NotReady:
            return False
        return True


class World:
    """All nodes, what lies between them, and the truth."""

    def __init__(self, loop: VirtualTimeLoop, seed: int, shape: Shape) -> None:
        self.loop = loop
        self.shape = shape
        self.choose = random.Random(seed)
        self.faults = Faults()
        self.stream = Stream(messages_max=self.choose.choice((1000, 1000, 40)))
        self.disks: list[Disk] = []
        self.shared = self.new_disk(is_shared=True)
        self.nodes: list[Node] = []
        self.counted_ms: dict[int, float] = {}
        """When each transaction was acknowledged as counted, by its id."""
        self.failures: list[str] = []
        loop.set_task_factory(_of_its_node)  # type: ignore[arg-type]  # it is given a context as well

    def new_disk(self, *, is_shared: bool = False) -> Disk:
        disk = Disk(self.choose.randbytes(32), is_shared=is_shared)
        self.disks.append(disk)
        return disk

    def wall_ms(self) -> float:
        """The time there would be if all clocks were right."""
        return START_MS + self.loop.time() * 1000

    @property
    def up(self) -> list[Node]:
        return [node for node in self.nodes if node.is_answering]

    def check_safety(self) -> None:
        """No node counts more than the truth, in any slot."""
        for node in self.up:
            most: Counter[Slot] = Counter()
            for disk in self.disks:
                of_disk: dict[Slot, Counter[int]] = {}
                for kept in disk.kept:
                    if disk is not node.disk or kept.epoch >= node.epoch_min:
                        of_disk.setdefault(_slot(kept.row), Counter())[kept.epoch] += 1
                for slot, counts in of_disk.items():
                    most[slot] += max(counts.values())
            for slot, summary in node.slots().items():
                assert summary.count <= most[slot], (node.name, slot, summary, most[slot])

    def check_honesty(self) -> None:
        """What a node says that it knows, it knows."""
        for node in self.up:
            freshness = node.freshness
            assert freshness is not None
            if freshness.is_degraded or node.is_astray:
                continue
            slots, now_ms = node.slots(), node.now_ms()
            # Where there was nobody else, somebody may have come back since.
            known_ms = -math.inf
            if freshness.complete_ms is not None:
                known_ms = freshness.complete_ms - node.skew_ms
            introduced = node.exchange.introduced
            needed: Counter[Slot] = Counter()
            for disk in self.disks:
                store = identity(disk.secret)
                for kept in disk.rows:
                    source = kept.node, store
                    counted_ms = self.counted_ms.get(kept.row.id, math.inf)
                    is_known = source in introduced and counted_ms <= known_ms
                    if is_known or (source == node.source and counted_ms < math.inf):
                        needed[_slot(kept.row)] += 1
            for slot, count in needed.items():
                if slot[1] >= now_ms - self.shape.window_ms:
                    found = slots[slot].count if slot in slots else 0
                    assert found >= count, (
                        node.name,
                        slot,
                        found,
                        count,
                        freshness,
                        self._story_of(slot, known_ms),
                    )

    def _story_of(self, slot: Slot, known_ms: float) -> list[object]:
        """Who has counted what in a slot, and how long before the instant up to which all is known."""
        return [
            (
                kept.node,
                disk.is_shared,
                kept.epoch,
                known_ms - self.counted_ms.get(kept.row.id, math.nan),
            )
            for disk in self.disks
            for kept in disk.kept
            if _slot(kept.row) == slot
        ]

    @property
    def kept(self) -> Iterator[Kept]:
        """All rows that are not deleted."""
        for disk in self.disks:
            yield from disk.rows

    def check_convergence(self) -> None:
        """All nodes answer the truth, for any part of the window."""
        truth = self._truth()
        for node in self.up:
            moment = node.ledger.moment()
            for _ in range(8):
                window_ms = self.choose.choice(
                    (self.shape.window_ms, self.choose.randrange(1, self.shape.window_ms))
                )
                currency = self.choose.choice((None, *CURRENCIES))
                figures = node.ledger.read(moment, window_ms, currency).figures
                expected = _figures(truth, moment.now_ms - window_ms, currency)
                assert figures == expected, (
                    node.name,
                    window_ms,
                    currency,
                    self._differences(node, truth),
                )

    def _differences(self, node: Node, truth: dict[Slot, Summary]) -> list[object]:
        slots, from_ms = node.slots(), node.now_ms() - self.shape.window_ms
        return [
            (slot, slots.get(slot), truth.get(slot), self._story_of(slot, self.wall_ms()))
            for slot in {**slots, **truth}
            if slot[1] >= from_ms and slots.get(slot) != truth.get(slot)
        ]

    def _truth(self) -> dict[Slot, Summary]:
        """By slot: what is kept, and of those whose store is gone what they have told."""
        lost = {identity(disk.secret): disk for disk in self.lost_disks}
        truth: dict[Slot, Summary] = {}
        for disk in self.disks:
            if identity(disk.secret) not in lost:
                for kept in disk.rows:
                    _add(truth, _slot(kept.row), Summary.of(kept.row.transaction.amount_units))
        told: dict[bytes, tuple[int, dict[Slot, Summary]]] = {}
        for entry in self.stream.all_entries:
            bulletin = Bulletin.decode(entry.message)
            if bulletin.store not in lost:
                continue
            epoch, slots = told.setdefault(bulletin.store, (bulletin.epoch, {}))
            if bulletin.epoch > epoch:
                epoch, slots = told[bulletin.store] = bulletin.epoch, {}
            if bulletin.epoch == epoch:
                for of_currency in bulletin.slots:
                    for ms, *measures in of_currency.parts(bulletin.resolution_ms):
                        summary, held = Summary(*measures), slots.get((of_currency.currency, ms))
                        if held is None or held.count < summary.count:
                            slots[of_currency.currency, ms] = summary
        for _, slots in told.values():
            for slot, summary in slots.items():
                _add(truth, slot, summary)
        return truth

    @property
    def lost_disks(self) -> list[Disk]:
        """Those that nobody can read any more."""
        in_use = {id(node.disk) for node in self.nodes if not node.is_gone}
        return [disk for disk in self.disks if disk is not self.shared and id(disk) not in in_use]


def _of_its_node(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any],
    **options: Any,  # noqa: ANN401
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    node = _of_node.get() if context is None else context.get(_of_node)
    if node is not None:
        node.tasks.add(task)
        task.add_done_callback(node.tasks.discard)
    return task


def _slot(row: Row) -> Slot:
    return row.transaction.currency, row.transaction.timestamp_ms


def _add(summaries: dict[Slot, Summary], slot: Slot, summary: Summary) -> None:
    summaries[slot] = summaries[slot].merge(summary) if slot in summaries else summary


def _figures(truth: dict[Slot, Summary], from_ms: int, currency: str | None) -> Figures:
    by_currency: dict[str, Summary] = {}
    for (code, slot_ms), summary in truth.items():
        if slot_ms >= from_ms and currency in (None, code):
            by_currency[code] = by_currency[code].merge(summary) if code in by_currency else summary
    return Figures.joining((code, by_currency[code]) for code in sorted(by_currency))
