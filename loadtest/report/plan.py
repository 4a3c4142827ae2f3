"""How much is measured: the whole, a glance, or just enough to see that every part turns."""

from typing import Final

import msgspec

CURRENCIES: Final = ("CHF", "EUR", "GBP", "USD")
CONNECTIONS: Final = 64
LOADS_PERCENT: Final = (50, 80)
MARGIN: Final = 1.05
STATS_TARGET_MS: Final = 5.0

# Without batches a fill takes an answer for each transaction.
WITHOUT_BATCHES_IN_WINDOW_MAX: Final = 100_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One extent of the measurement."""

    name: str
    decades: int
    """N is 10, 100, ... up to ten to this power."""
    rounds: int
    """Each round starts a process for every N."""
    reads: int
    """Timed `GET /stats` in each of those processes."""
    posts_per_second: int = 25
    """What is posted beside the reads; at every N the same."""
    bare_rounds: int
    bare_reads: int
    bare_read_seconds_max: float
    """A reading that takes longer than all its reads may is cut short, but not below five reads."""
    write_rounds: int
    write_seconds: float
    stats_per_second: int = 100
    """Reads beside the posts of a run under load."""

    def in_window(self, has_batches: bool) -> list[int]:
        """The numbers of transactions in the window, smallest first."""
        numbers = [10**decade for decade in range(1, self.decades + 1)]
        return [n for n in numbers if has_batches or n <= WITHOUT_BATCHES_IN_WINDOW_MAX]


FULL: Final = Plan(
    name="full",
    decades=7,
    rounds=5,
    reads=8000,
    bare_rounds=3,
    bare_reads=1000,
    bare_read_seconds_max=3.0,
    write_rounds=3,
    write_seconds=5.0,
)
QUICK: Final = Plan(
    name="quick",
    decades=5,
    rounds=3,
    reads=1000,
    bare_rounds=2,
    bare_reads=300,
    bare_read_seconds_max=0.5,
    write_rounds=1,
    write_seconds=2.0,
)
TINY: Final = Plan(
    name="tiny",
    decades=2,
    rounds=2,
    reads=100,
    bare_rounds=1,
    bare_reads=20,
    bare_read_seconds_max=0.1,
    write_rounds=1,
    write_seconds=0.15,
)
