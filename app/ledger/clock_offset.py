"""How far this node's clock is ahead of the exchange's, as their exchanges have shown."""

from collections import deque
from math import ceil
from typing import Final

# The quickest of so many exchanges is gone by.
_SAMPLES: Final = 64
# Besides what the exchange's own duration leaves open: both clocks are read in whole milliseconds.
_READING_MS: Final = 2
# Clocks drift by less in so many exchanges; what differs by more was set.
_DRIFT_MS_MAX: Final = 5


class ClockOffset:
    """Learns from samples, each of which holds give or take half its width."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)

    @property
    def is_measured(self) -> bool:
        """Whether anything has shown it."""
        return bool(self._samples)

    @property
    def ahead_ms(self) -> float:
        """How far; 0 before anything has shown it."""
        return min(self._samples)[1] if self._samples else 0.0

    @property
    def doubt_ms(self) -> int:
        """By how much that may be wrong."""
        return ceil(min(self._samples)[0] / 2) + _READING_MS if self._samples else 0

    def contradicts(self, ahead_ms: float, width_ms: float) -> bool:
        """Whether one of the clocks must have been set since, going by this sample."""
        if not self._samples:
            return False
        known_width_ms, known_ahead_ms = min(self._samples)
        return abs(ahead_ms - known_ahead_ms) > (width_ms + known_width_ms) / 2 + _DRIFT_MS_MAX

    def note(self, ahead_ms: float, width_ms: float) -> None:
        """Learn one more."""
        self._samples.append((width_ms, ahead_ms))

    def forget(self) -> None:
        """Begin anew."""
        self._samples.clear()
