"""What was told of instants that are too far ahead of this node's clock, put by until they have come."""

from collections import deque
from typing import Final, Generic, TypeVar

from app.core.window import Part
from app.core.windows import Counted

# Some MB. Who has more put by has a clock that cannot be gone by, and hears all once more when it can.
SLOTS_MAX: Final = 10_000

Sender = TypeVar("Sender")


class Early(Generic[Sender]):
    """Parts, by who told them. What is put by beyond the bound displaces the oldest."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Sender, str, Part]] = deque(maxlen=SLOTS_MAX)

    def sift(self, sender: Sender, counted: Counted, latest_ms: int) -> Counted:
        """What of this is not too early; the rest is put by."""
        timely: dict[str, list[Part]] = {}
        for currency, parts in counted.items():
            timely[currency] = [part for part in parts if part[0] <= latest_ms]
            if len(timely[currency]) < len(parts):
                self._waiting += ((sender, currency, part) for part in parts if part[0] > latest_ms)
        return timely

    def due(self, latest_ms: int) -> list[tuple[Sender, str, Part]]:
        """What was put by and is not too early any more, in the order it came."""
        if not any(part[0] <= latest_ms for _, _, part in self._waiting):
            return []
        waiting, found = list(self._waiting), []
        self._waiting.clear()
        for each in waiting:
            if each[2][0] <= latest_ms:
                found.append(each)
            else:
                self._waiting.append(each)
        return found
