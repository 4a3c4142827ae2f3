"""The ring: exact statistics over a sliding window, in constant time and memory.

Time is cut into slots of `resolution_ms` (a millisecond, for windows up to two minutes), sixteen
slots make a group and sixteen groups a block. A slot holds count, sum, minimum and maximum of its
amounts; group and block hold the same for all their slots. The ring holds the newest `BLOCKS`
blocks, and that is the whole law:

    blocks (newest - BLOCKS, newest] are in the ring, each whole; no other block is.

- A write adds to one slot, its group and its block, so order of arrival does not matter.
- A write to a block past the newest makes that one the newest. The blocks that fall out on the way
  are dropped, at most all of them: nothing survives an hour of silence.
- A read of "everything since T" adds up the rest of T's group slot by slot, the rest of its block
  group by group, and every later block: at most 16 slots, 15 groups and `BLOCKS` blocks, however many
  amounts they hold, and as many where they hold none. Nothing is ever evicted by a read: it names its
  range, and older slots are outside of it.

General sliding windows with disorder cannot be constant (Tangwongsan, Hirzel and Schneider, "Optimal
and General Out-of-Order Sliding-Window Aggregation", VLDB 2019, prove a logarithm). This one is,
because time here is a bounded set of integers.

The window knows no clock. Whoever calls it says what time it is.
"""

from array import array
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import Final, NamedTuple

from app.core.money import UNITS_MAX
from app.core.summary import EMPTY, Summary

_GROUP_BITS: Final = 4
_SLOT_BITS: Final = 8
SLOTS_PER_BLOCK: Final = 1 << _SLOT_BITS
_SLOT_MASK: Final = SLOTS_PER_BLOCK - 1
_GROUP_MASK: Final = (1 << _GROUP_BITS) - 1

# A block's groups lie behind its slots, in the same cells.
_CELLS_PER_BLOCK: Final = SLOTS_PER_BLOCK + (SLOTS_PER_BLOCK >> _GROUP_BITS)

EXACT_WINDOW_MS_MAX: Final = 120_000
_COARSE_SLOTS: Final = 60_000

_ZEROS: Final = array("q", [0]) * _CELLS_PER_BLOCK
_HIGHEST: Final = array("q", [UNITS_MAX]) * _CELLS_PER_BLOCK
_LOWEST: Final = array("q", [-UNITS_MAX]) * _CELLS_PER_BLOCK


class Shape(NamedTuple):
    """How a window of some length is cut; every currency's window has the same one."""

    window_ms: int
    ahead_ms: int
    """How far ahead of the clock a timestamp may lie."""
    resolution_ms: int
    blocks: int
    """The ring's length in blocks, a power of two."""

    @classmethod
    def covering(cls, window_ms: int, ahead_ms: int) -> "Shape":
        """The smallest shape that holds `window_ms` back and `ahead_ms` forward of any instant.

        Up to two minutes a slot is a millisecond; above, at most 1/60 000 of the window.
        """
        is_exact = window_ms <= EXACT_WINDOW_MS_MAX
        resolution_ms = 1 if is_exact else window_ms // _COARSE_SLOTS
        # A block more at either end: both edges fall somewhere inside one.
        blocks = -(-(window_ms + ahead_ms) // (resolution_ms * SLOTS_PER_BLOCK)) + 2
        return cls(window_ms, ahead_ms, resolution_ms, 1 << (blocks - 1).bit_length())

    @property
    def rewind_ms(self) -> int:
        """How far a clock may step back and still find its whole window in the ring."""
        whole_ms = (self.blocks - 2) * SLOTS_PER_BLOCK * self.resolution_ms
        return whole_ms - self.window_ms - self.ahead_ms


Part = Sequence[int]
"""Amounts of one instant: its milliseconds, then count, sum, minimum and maximum of the amounts."""


class _Cells(NamedTuple):
    """Slots and groups of one block, or all blocks. Sums may pass 64 bits, so they are no array."""

    counts: MutableSequence[int]
    sums: MutableSequence[int]
    minima: MutableSequence[int]
    maxima: MutableSequence[int]


def _empty_cells() -> _Cells:
    return _Cells(_ZEROS[:], [0] * _CELLS_PER_BLOCK, _HIGHEST[:], _LOWEST[:])


_NOTHING: Final = (0, 0, UNITS_MAX, -UNITS_MAX)
_NO_CELLS: Final = _empty_cells()


class Window:
    """Statistics of one series of amounts over the time since any instant the ring still holds."""

    def __init__(self, shape: Shape) -> None:
        self._resolution_ms = shape.resolution_ms
        self._blocks = shape.blocks
        self._block_mask = shape.blocks - 1
        self._newest: int | None = None
        self._cells: list[_Cells | None] = [None] * shape.blocks
        self._totals = _Cells(
            [0] * shape.blocks,
            [0] * shape.blocks,
            [UNITS_MAX] * shape.blocks,
            [-UNITS_MAX] * shape.blocks,
        )

    def record(self, timestamp_ms: int, amount_units: int) -> bool:
        """Add one amount. False where the ring has moved past its time, and nothing was added."""
        return self.add(((timestamp_ms, 1, amount_units, amount_units, amount_units),)) == 0

    def absorb(self, timestamp_ms: int, summary: Summary) -> bool:
        """Add all amounts of one instant at once, as `record` would one by one."""
        parts = summary.count, summary.sum_units, summary.min_units, summary.max_units
        return self.add(((timestamp_ms, *parts),)) == 0

    def add(self, parts: Iterable[Part]) -> int:
        """Add amounts that were summed up by instant; how many parts the ring had moved past."""
        resolution_ms, all_blocks, block_mask = self._resolution_ms, self._blocks, self._block_mask
        block_counts, block_sums, block_minima, block_maxima = self._totals
        newest = self._newest
        missed = 0
        for timestamp_ms, count, sum_units, min_units, max_units in parts:
            slot = timestamp_ms // resolution_ms
            block = slot >> _SLOT_BITS
            if newest is None or block > newest:
                self._advance(block)
                newest = block
            elif block <= newest - all_blocks:
                missed += 1
                continue
            index = block & block_mask
            slot &= _SLOT_MASK
            group = SLOTS_PER_BLOCK + (slot >> _GROUP_BITS)
            counts, sums, minima, maxima = self._cells[index] or self._open(index)
            counts[slot] += count
            counts[group] += count
            sums[slot] += sum_units
            sums[group] += sum_units
            if min_units < minima[slot]:
                minima[slot] = min_units
                if min_units < minima[group]:
                    minima[group] = min_units
            if max_units > maxima[slot]:
                maxima[slot] = max_units
                if max_units > maxima[group]:
                    maxima[group] = max_units
            block_counts[index] += count
            block_sums[index] += sum_units
            if min_units < block_minima[index]:
                block_minima[index] = min_units
            if max_units > block_maxima[index]:
                block_maxima[index] = max_units
        return missed

    def since(self, from_ms: int) -> Summary:
        """The summary of every amount whose time is `from_ms` or later."""
        newest = self._newest
        if newest is None:
            return EMPTY
        slot = from_ms // self._resolution_ms
        block = slot >> _SLOT_BITS
        if block > newest:
            return EMPTY
        oldest = newest - self._blocks + 1
        if block < oldest:
            block, slot = oldest, 0
        # The same steps whether or not there is anything in the block.
        cells = self._cells[block & self._block_mask] or _NO_CELLS
        slot &= _SLOT_MASK
        parts = [
            (cells, slice(slot, (slot | _GROUP_MASK) + 1)),
            (cells, slice(SLOTS_PER_BLOCK + (slot >> _GROUP_BITS) + 1, _CELLS_PER_BLOCK)),
        ]
        parts += [(self._totals, part) for part in self._block_slices(block + 1, newest + 1)]
        return Summary(
            sum(sum(counts[part]) for (counts, _, _, _), part in parts),
            sum(sum(sums[part]) for (_, sums, _, _), part in parts),
            min(min(minima[part], default=UNITS_MAX) for (_, _, minima, _), part in parts),
            max(max(maxima[part], default=-UNITS_MAX) for (_, _, _, maxima), part in parts),
        )

    def _block_slices(self, first: int, end: int) -> Iterator[slice]:
        """The blocks from `first` up to, not including, `end`, as one or two runs of the ring."""
        if first >= end:
            return
        start, stop = first & self._block_mask, end & self._block_mask
        if start < stop:
            yield slice(start, stop)
        else:
            yield slice(start, self._blocks)
            if stop:
                yield slice(0, stop)

    def _advance(self, block: int) -> None:
        """Make `block` the newest; blocks that fall out of the ring are emptied for reuse."""
        if self._newest is not None:
            for stale in range(max(self._newest + 1, block - self._blocks + 1), block + 1):
                index = stale & self._block_mask
                self._cells[index] = None
                for cells, nothing in zip(self._totals, _NOTHING, strict=True):
                    cells[index] = nothing
        self._newest = block

    def _open(self, index: int) -> _Cells:
        """Give a block its cells: memory is taken where amounts fall, so a quiet currency is small."""
        cells = self._cells[index] = _empty_cells()
        return cells
