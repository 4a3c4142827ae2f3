"""What is read off a ledger, or a mirror of one, and why nothing can be."""

from enum import Enum
from typing import NamedTuple

from app.core.summary import Figures
from app.ledger.statistics import Freshness


class Unready(Enum):
    """Why a transaction would not be taken now."""

    STARTING = "reading back the last window"
    CLOCK_STEPPED = "the clock was set back, and the window is being read back"
    STORE_REFUSES = "the store takes nothing: its disk is full, it is locked, or it does not answer"
    STORE_FAILED = "the store has failed"
    OVERLOADED = "too many transactions are waiting to be stored"
    CLOCK_SKEWED = "the clock differs from the other nodes'"
    DRAINING = "shutting down"


class NotReady(Exception):
    """The ledger cannot do this now."""

    def __init__(self, reason: Unready) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Moment(NamedTuple):
    """An instant, and the version of what was counted: the same moment has the same figures."""

    now_ms: int
    version: int


class Reading(NamedTuple):
    """Figures, and the span of time they are true of."""

    as_of_ms: int
    window_ms: int
    figures: Figures
    freshness: Freshness | None
    """None where there are no other nodes to be known of."""
