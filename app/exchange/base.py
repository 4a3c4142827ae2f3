"""The Exchange protocol: a place where every node tells, and hears what all have told."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Heard(NamedTuple):
    """What one exchange has brought."""

    messages: Sequence[bytes]
    """What was told since the last time, this node's own among it, oldest first."""
    exchange_ms: float
    """When the exchange took in what was told, by its own clock."""
    has_more: bool
    """Whether more was told than could be heard at once."""
    has_lost: bool
    """Whether the exchange has lost what was told before: what was said must be said again."""


class ExchangeFailed(Exception):
    """The exchange did not answer, or not in time; what was told may have been told or not."""


class Exchange(Protocol):
    """What is told is kept for as long as the window may need it, and may be told again harmlessly."""

    async def swap(self, message: bytes) -> Heard:
        """Tell something, and hear what was told since the last time. Raises ExchangeFailed."""

    def rewind(self) -> None:
        """Hear everything once more that is still kept."""

    async def close(self) -> None:
        """Leave; the last call."""
