"""A store that several nodes share, and that outlives them; commits and deletions take their time."""

import asyncio
import random
from collections.abc import Sequence
from typing import NamedTuple

from app.core.idempotency import Record
from app.core.transaction import Row
from app.store.base import MemoryStore, Tallies, Tally


class Kept(NamedTuple):
    """A row that is durable."""

    row: Row
    node: str
    epoch: int
    kept_seconds: float


class Disk:
    """What is kept, by whomever. Nothing is ever removed: what is deleted is of an earlier epoch."""

    def __init__(self, secret: bytes, *, is_shared: bool) -> None:
        self.is_shared = is_shared
        self.kept: list[Kept] = []
        self.epoch = 0
        self.secret = secret

    @property
    def rows(self) -> list[Kept]:
        """What is kept, and not deleted."""
        return [kept for kept in self.kept if kept.epoch == self.epoch]


class SharedStore(MemoryStore):
    """One node's way to the disk. Whatever it does takes effect at an instant in the middle."""

    def __init__(self, disk: Disk, node: str, choose: random.Random) -> None:
        super().__init__()
        self._disk = disk
        self._node = node
        self._choose = choose

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        await self._wait()
        disk, now = self._disk, asyncio.get_running_loop().time()
        disk.kept += (Kept(row, self._node, disk.epoch, now) for row in rows)
        epoch = disk.epoch
        await self._wait()
        return epoch

    async def clear(self) -> int:
        await self._wait()
        self._disk.epoch += 1
        epoch = self._disk.epoch
        await self._wait()
        return epoch

    async def epoch(self) -> int:
        await self._wait()
        epoch = self._disk.epoch
        await self._wait()
        return epoch

    async def tally(
        self, from_ms: int, to_ms: int, resolution_ms: int, node: str | None = None
    ) -> Tallies:
        await self._wait()
        rows, epoch = self._disk.rows, self._disk.epoch
        tallies: list[Tally] = []
        for name in sorted({kept.node for kept in rows}):
            of_node = MemoryStore()
            await of_node.append(
                [kept.row for kept in rows if kept.node == name and node in (None, name)]
            )
            _, found = await of_node.tally(from_ms, to_ms, resolution_ms)
            tallies += [tally._replace(node=name) for tally in found] if self._disk.is_shared else found
        await self._wait()
        return Tallies(epoch, tallies)

    async def secret(self) -> bytes:
        return self._disk.secret

    async def _wait(self) -> None:
        is_slow = self._choose.random() < 0.15
        await asyncio.sleep(
            self._choose.uniform(0.01, 0.15) if is_slow else self._choose.uniform(0, 0.003)
        )
