"""How values are spread: counted by buckets, each as cheap as the next."""

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts values up to each of some bounds, which ascend, and above them. It has one writer."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Of each bucket alone; the last one is above all bounds."""
        self.total: float = 0
        """The sum of the values."""

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
