"""An event loop whose clock goes on only when there is nothing left to do: seconds take no time."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Sleeping moves the clock, and nothing else does. There are no sockets, threads or processes."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0
        # What asyncio itself would wait with.
        self._selector.select = self._skip  # type: ignore[attr-defined]

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._seconds

    def _skip(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for something that cannot happen any more"
        self._seconds += max(timeout, 0.0)
        return []


def run(main: Coroutine[Any, Any, Result], loop: VirtualTimeLoop) -> Result:
    """Run to the end, and end what is still under way."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
