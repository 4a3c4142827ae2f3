"""The ring: exact statistics over a sliding window, in constant time and memory.

Time is cut into slots of `resolution_ms` (a millisecond, for windows up to two minutes). Sixteen
slots make a group, sixteen groups a block and sixteen blocks a span. A slot holds count, sum, minimum
and maximum of its amounts; group, block and span hold the same for all their slots. The ring holds
the newest `spans` spans, and that is the whole law:

    spans (newest - spans, newest] are in the ring, each whole; no other span is.

- A write adds to one slot, its group, its block and its span, so order of arrival does not matter.
- A write to a span past the newest makes that one the newest. The spans that fall out on the way are
  dropped, at most all of them: nothing survives an hour of silence.
- A read of "everything since T" adds up the rest of T's group slot by slot, the rest of its block
  group by group, the rest of its span block by block, and every later span: at most 16 slots, 15
  groups, 15 blocks and the spans, however many amounts they hold, and as many where they hold none.
  Nothing is ever evicted by a read: it names its range, and older slots are outside of it.

General sliding windows with disorder cannot be constant (Tangwongsan, Hirzel and Schneider, "Optimal
and General Out-of-Order Sliding-Window Aggregation", VLDB 2019, prove a logarithm). This one is,
because time here is a bounded set of integers.

The window knows no clock. Whoever calls it says what time it is.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import Final, NamedTuple

from app.core.money import UNITS_MAX
from app.core.summary import EMPTY, Summary

_FANOUT_BITS: Final = 4
_FANOUT_MASK: Final = (1 << _FANOUT_BITS) - 1
_BLOCK_BITS: Final = 2 * _FANOUT_BITS
_SPAN_BITS: Final = 3 * _FANOUT_BITS
_BLOCKS_PER_SPAN: Final = 1 << _FANOUT_BITS
_SLOTS_PER_BLOCK: Final = 1 << _BLOCK_BITS
_SLOT_MASK: Final = _SLOTS_PER_BLOCK - 1
SLOTS_PER_SPAN: Final = 1 << _SPAN_BITS

# A block's groups lie behind its slots, in the same cells.
_CELLS_PER_BLOCK: Final = _SLOTS_PER_BLOCK + (_SLOTS_PER_BLOCK >> _FANOUT_BITS)

EXACT_WINDOW_MS_MAX: Final = 120_000
_COARSE_SLOTS: Final = 60_000


class Shape(NamedTuple):
    """How a window of some length is cut; every currency's window has the same one."""

    window_ms: int
    ahead_ms: int
    """How far ahead of the clock a timestamp may lie."""
    resolution_ms: int
    spans: int
    """The ring's length."""

    @classmethod
    def covering(cls, window_ms: int, ahead_ms: int) -> "Shape":
        """A shape that holds `window_ms` back and `ahead_ms` forward of any instant.

        Up to two minutes a slot is a millisecond; above, at most 1/60 000 of the window.
        """
        is_exact = window_ms <= EXACT_WINDOW_MS_MAX
        resolution_ms = 1 if is_exact else window_ms // _COARSE_SLOTS
        # One more, as both edges fall somewhere inside a span, and one for a clock that steps back.
        spans = -(-(window_ms + ahead_ms) // (resolution_ms * SLOTS_PER_SPAN)) + 2
        return cls(window_ms, ahead_ms, resolution_ms, spans)

    @property
    def rewind_ms_max(self) -> int:
        """What `rewind_ms` stays below, however far ahead a shape of this window reaches."""
        return 2 * SLOTS_PER_SPAN * self.resolution_ms

    @property
    def rewind_ms(self) -> int:
        """How far a clock may step back and still find its whole window in the ring."""
        whole_ms = (self.spans - 1) * SLOTS_PER_SPAN * self.resolution_ms
        return whole_ms - self.window_ms - self.ahead_ms


Part = Sequence[int]
"""Amounts of one instant: its milliseconds, then count, sum, minimum and maximum of the amounts."""


class _Cells(NamedTuple):
    """What one level of the ring has added up. Sums may pass 64 bits, so they are no array."""

    counts: MutableSequence[int]
    sums: MutableSequence[int]
    minima: MutableSequence[int]
    maxima: MutableSequence[int]


def _packed_cells(length: int) -> _Cells:
    """Cells of a block: there are many, and arrays take an eighth of the memory of lists."""
    zeros = array("q", [0]) * length
    lowest, highest = array("q", [UNITS_MAX]) * length, array("q", [-UNITS_MAX]) * length
    return _Cells(zeros, [0] * length, lowest, highest)


def _listed_cells(length: int) -> _Cells:
    """Cells of blocks and spans: there are few, and lists are faster."""
    return _Cells([0] * length, [0] * length, [UNITS_MAX] * length, [-UNITS_MAX] * length)


def _bytes_of(cells: _Cells) -> int:
    """What cells take of memory, roughly: sums are integers on their own, unless they are small."""
    return sum(map(sys.getsizeof, cells)) + len(cells.sums) * sys.getsizeof(UNITS_MAX)


# Read in place of a block that has no cells: the same steps, whether or not there is anything in it.
_NO_CELLS: Final = _packed_cells(_CELLS_PER_BLOCK)

_BLOCK_BYTES: Final = _bytes_of(_NO_CELLS)

# How each measure of many cells becomes that of all of them together, in the order of _Cells.
_REDUCTIONS: Final[tuple[Callable[[Iterable[int]], int], ...]] = (sum, sum, min, max)


class Window:
    """Statistics of one series of amounts over the time since any instant the ring still holds."""

    def __init__(self, shape: Shape) -> None:
        self._resolution_ms = shape.resolution_ms
        self._spans = shape.spans
        self._newest: int | None = None
        # All of these begin with the oldest span that is in the ring.
        self._cells: list[_Cells | None] = [None] * (shape.spans * _BLOCKS_PER_SPAN)
        self._block_totals = _listed_cells(shape.spans * _BLOCKS_PER_SPAN)
        self._span_totals = _listed_cells(shape.spans)

    def record(self, timestamp_ms: int, amount_units: int) -> bool:
        """Add one amount. False where the ring has moved past its time, and nothing was added."""
        return self.add(((timestamp_ms, 1, amount_units, amount_units, amount_units),)) == 0

    def add(self, parts: Iterable[Part]) -> int:
        """Add amounts that were summed up by instant; how many parts the ring had moved past."""
        resolution_ms, all_cells = self._resolution_ms, self._cells
        block_counts, block_sums, block_minima, block_maxima = self._block_totals
        span_counts, span_sums, span_minima, span_maxima = self._span_totals
        all_spans, newest = self._spans, self._newest
        missed = 0
        for timestamp_ms, count, sum_units, min_units, max_units in parts:
            slot = timestamp_ms // resolution_ms
            span = slot >> _SPAN_BITS
            if newest is None or span > newest:
                self._advance(span)
                newest = span
            elif span <= newest - all_spans:
                missed += 1
                continue
            span -= newest - all_spans + 1
            block = (span << _FANOUT_BITS) + (slot >> _BLOCK_BITS & _FANOUT_MASK)
            slot &= _SLOT_MASK
            group = _SLOTS_PER_BLOCK + (slot >> _FANOUT_BITS)
            counts, sums, minima, maxima = all_cells[block] or self._open(block)
            counts[slot] += count
            counts[group] += count
            block_counts[block] += count
            span_counts[span] += count
            sums[slot] += sum_units
            sums[group] += sum_units
            block_sums[block] += sum_units
            span_sums[span] += sum_units
            # What is no extreme of its slot is none of anything that holds the slot.
            if min_units < minima[slot]:
                minima[slot] = min_units
                if min_units < minima[group]:
                    minima[group] = min_units
                    if min_units < block_minima[block]:
                        block_minima[block] = min_units
                        if min_units < span_minima[span]:
                            span_minima[span] = min_units
            if max_units > maxima[slot]:
                maxima[slot] = max_units
                if max_units > maxima[group]:
                    maxima[group] = max_units
                    if max_units > block_maxima[block]:
                        block_maxima[block] = max_units
                        if max_units > span_maxima[span]:
                            span_maxima[span] = max_units
        return missed

    def since(self, from_ms: int) -> Summary:
        """The summary of every amount whose time is `from_ms` or later."""
        newest = self._newest
        slot = from_ms // self._resolution_ms
        if newest is None or slot >> _SPAN_BITS > newest:
            return EMPTY
        oldest = newest - self._spans + 1
        slot = max(slot - (oldest << _SPAN_BITS), 0)
        span, block, slot = slot >> _SPAN_BITS, slot >> _BLOCK_BITS, slot & _SLOT_MASK
        group = _SLOTS_PER_BLOCK + (slot >> _FANOUT_BITS)
        cells = self._cells[block] or _NO_CELLS
        in_group = slice(slot, (slot | _FANOUT_MASK) + 1)
        in_block = slice(group + 1, _CELLS_PER_BLOCK)
        in_span = slice(block + 1, (block | _FANOUT_MASK) + 1)
        later = slice(span + 1, self._spans)
        return Summary(
            *(
                reduce((*of_cells[in_group], *of_cells[in_block], *of_blocks[in_span], *of_spans[later]))
                for reduce, of_cells, of_blocks, of_spans in zip(
                    _REDUCTIONS, cells, self._block_totals, self._span_totals, strict=True
                )
            )
        )

    def lift(self, parts: Iterable[Part]) -> list[Part]:
        """Raise slots to what they are said to hold; what that has added, as parts.

        For a copy of a window that only grows: of two tellings of a slot the one that counts more is
        the later one, so they may come twice, late and in any order. No slot is told twice in one call.
        """
        added: list[Part] = []
        for part in parts:
            held_count, held_sum = self._held(part[0])[:2]
            if part[1] > held_count:
                added.append((part[0], part[1] - held_count, part[2] - held_sum, part[3], part[4]))
        self.add(added)
        return added

    def at(self, timestamp_ms: int) -> Part | None:
        """All that the slot of this time holds; None where that is nothing."""
        held = self._held(timestamp_ms)
        return (timestamp_ms, *held) if held[0] else None

    def is_past(self, other: "Window") -> bool:
        """Whether this ring has moved past all that the other one, of the same shape, holds."""
        if self._newest is None or other._newest is None:
            return other._newest is None
        return other._newest <= self._newest - self._spans

    def parts(self) -> list[Part]:
        """All there is, by slot, each named by its start."""
        newest = self._newest
        if newest is None:
            return []
        resolution_ms = self._resolution_ms
        first = (newest - self._spans + 1) << _SPAN_BITS
        return [
            ((first + (block << _BLOCK_BITS) + slot) * resolution_ms, *measures)
            for block, cells in enumerate(self._cells)
            if cells is not None
            for slot, measures in enumerate(
                zip(*(cell[:_SLOTS_PER_BLOCK] for cell in cells), strict=True)
            )
            if measures[0]
        ]

    @property
    def allocated_bytes(self) -> int:
        """What it takes of memory where many amounts are in it, to some percent."""
        blocks = len(self._cells) - self._cells.count(None)
        totals = _bytes_of(self._block_totals) + _bytes_of(self._span_totals)
        return blocks * _BLOCK_BYTES + sys.getsizeof(self._cells) + totals

    def _held(self, timestamp_ms: int) -> tuple[int, int, int, int]:
        slot = timestamp_ms // self._resolution_ms
        newest = self._newest
        if (
            newest is not None
            and 0 <= (span := (slot >> _SPAN_BITS) - newest + self._spans - 1) < self._spans
        ):
            cells = self._cells[(span << _FANOUT_BITS) + (slot >> _BLOCK_BITS & _FANOUT_MASK)]
            if cells is not None:
                slot &= _SLOT_MASK
                return cells.counts[slot], cells.sums[slot], cells.minima[slot], cells.maxima[slot]
        return 0, 0, UNITS_MAX, -UNITS_MAX

    def _advance(self, span: int) -> None:
        """Make `span` the newest; as many fall out of the ring as come into it."""
        if self._newest is not None:
            spans = min(span - self._newest, self._spans)
            blocks = spans * _BLOCKS_PER_SPAN
            self._cells[:] = self._cells[blocks:] + [None] * blocks
            for totals, length in ((self._block_totals, blocks), (self._span_totals, spans)):
                for measure, nothing in zip(totals, _listed_cells(length), strict=True):
                    measure[:] = [*measure[length:], *nothing]
        self._newest = span

    def _open(self, block: int) -> _Cells:
        """Give a block its cells: memory is taken where amounts fall, so a quiet currency is small."""
        cells = self._cells[block] = _packed_cells(_CELLS_PER_BLOCK)
        return cells
