"""How often and how long something is tried again."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

_SECONDS: Final = re.compile(rb"0*([0-9]+)")
# More is longer than anyone waits, and need not be read to its end.
_DIGITS_MAX: Final = 9


class Patience(msgspec.Struct, frozen=True):
    """The bounds of trying again, and the clock, the sleep and the chance that they are held by."""

    attempts_max: int = 8
    total_seconds: float = 30.0
    """From the first attempt on; no wait and no attempt goes past it."""
    pause_seconds_min: float = 0.05
    pause_seconds_max: float = 5.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def pause_seconds(self, attempts: int, retry_after: bytes | None) -> float:
        """How long to wait after so many attempts.

        Twice as long each time, and any part of that, so that many who were refused together do not
        come again together; on top of what the service asks for, where it asks for something.
        """
        bound = min(self.pause_seconds_min * 2.0 ** min(attempts, 30), self.pause_seconds_max)
        found = _SECONDS.fullmatch(retry_after or b"")
        asked = int(found[1][: _DIGITS_MAX + 1]) if found else 0
        return asked + bound * self.chance()
