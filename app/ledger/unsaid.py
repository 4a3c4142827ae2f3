"""Slots that have changed since the other nodes were told of them.

They are told in the order in which they changed, a generation after the other: a generation is closed
when the one before is told, and when it is told itself, so is whatever was counted before it was closed.
However often a slot changes, it is told once a generation: what is to be told is bounded by the window.
"""

from collections.abc import Iterable
from itertools import islice

_Slots = dict[str, dict[int, None]]


class Unsaid:
    """By currency and the start of the slot, in milliseconds."""

    def __init__(self) -> None:
        self._gathering: _Slots = {}
        self._telling: _Slots = {}
        self._closed_ms = 0
        """When what is being told was closed."""
        self._latest_ms = 0
        self.complete_ms = 0
        """What was counted by then is told."""

    def note(self, currency: str, slots_ms: Iterable[int]) -> None:
        """These have changed."""
        self._gathering.setdefault(currency, {}).update(dict.fromkeys(slots_ms))

    def take(self, now_ms: int, slots_max: int) -> dict[str, list[int]]:
        """The next to be told, at most so many."""
        if now_ms < self._latest_ms:
            # The clock was set back: there will be what was counted at instants that have been before.
            self.take_back()
        self._latest_ms = now_ms
        if not self._telling:
            self._telling, self._gathering = self._gathering, {}
            self._closed_ms = now_ms
        taken: dict[str, list[int]] = {}
        for currency, slots_ms in list(self._telling.items()):
            taken[currency] = list(islice(slots_ms, slots_max))
            slots_max -= len(taken[currency])
            for slot_ms in taken[currency]:
                del slots_ms[slot_ms]
            # Told as they are now, they need not be told again for what has changed since.
            gathering = self._gathering.get(currency)
            if gathering:
                for slot_ms in taken[currency]:
                    gathering.pop(slot_ms, None)
            if not slots_ms:
                del self._telling[currency]
            if not slots_max:
                break
        return taken

    @property
    def complete_then_ms(self) -> int:
        """What `complete_ms` is when all that was taken has been told."""
        return self.complete_ms if self._telling else self._closed_ms

    def take_back(self) -> None:
        """What was said to be told may not be: nothing is, before the next generation is told."""
        self.complete_ms = self._closed_ms = 0

    def put_back(self, taken: dict[str, list[int]]) -> None:
        """These were not told after all."""
        for currency, slots_ms in taken.items():
            self._telling.setdefault(currency, {}).update(dict.fromkeys(slots_ms))

    def clear(self) -> None:
        """There is nothing to be told."""
        self._gathering.clear()
        self._telling.clear()
