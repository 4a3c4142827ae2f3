"""A circuit breaker: what has failed again and again is left alone for a while."""

from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 3
OPEN_SECONDS: Final = 0.3


class Breaker:
    """Closed while things go well; open after some failures; then one at a time may try again.

    `monotonic` is the clock, in seconds.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        failures_max: int = FAILURES_MAX,
        open_seconds: float = OPEN_SECONDS,
    ) -> None:
        self._monotonic = monotonic
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._failures = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether so much has failed that nothing is expected."""
        return self._failures >= self._failures_max

    @property
    def allows(self) -> bool:
        """Whether it may be tried now."""
        return not self.is_open or self._monotonic() >= self._retry_at

    def succeed(self) -> None:
        """It went well."""
        self._failures = 0

    def fail(self) -> None:
        """It did not."""
        self._failures += 1
        self._retry_at = self._monotonic() + self._open_seconds
