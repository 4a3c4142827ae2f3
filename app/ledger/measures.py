"""How the ledger is at a moment, in numbers."""

from enum import Enum
from typing import NamedTuple

from app.core.histogram import Histogram
from app.ledger.condition import Condition, NodeCondition


class StoreState(Enum):
    """Whether the store keeps what it is given."""

    HEALTHY = "healthy"
    REFUSING = "refusing"
    """It refused the last it was given; the next may be kept."""
    FAILED = "failed"
    """It broke; nothing more is taken before a restart."""


class Cooperation(NamedTuple):
    """How this node and the others get on."""

    exchange: Condition
    nodes: int
    """How many there are, this one included."""
    lag_ms: int
    """How far the transactions of others lie behind, at most."""
    clock_skew_ms: float
    """How far this node's clock is ahead of most others'."""
    others: list[NodeCondition]


class Measures(NamedTuple):
    """What is read off when someone asks."""

    is_ready: bool
    store: StoreState
    queue_rows: int
    """Transactions that wait to be stored, those of the commit under way included."""
    commit_seconds: Histogram
    commit_rows: Histogram
    window_transactions: int | None
    """None while the window is being read back."""
    window_bytes: int
    user_rows: int
    cooperation: Cooperation | None
    """None where there are no other nodes."""
