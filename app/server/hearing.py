"""A front's end of its pipe: hears what is counted, all of it before any question is answered."""

import asyncio
import io
import os
from collections.abc import Callable
from typing import Final

from app.ledger.mirror import Mirror
from app.server.link import Frames, apply, decode_news

_READ_BYTES: Final = 2**18
# Where nobody asks, what was counted may gather for so long: a turn of the loop for each commit would
# cost more than all that is heard.
_GATHER_SECONDS: Final = 0.025


class Hearing:
    """Reads the pipe and passes on what it hears to the `mirror`.

    `on_whole` is called once all there was has been heard; `on_end` when the back has gone or has cut
    this front off, from where nothing must be answered any more.
    """

    def __init__(
        self,
        pipe: int,
        mirror: Mirror,
        on_whole: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        os.set_blocking(pipe, False)
        # It reads None where there is nothing, where os.read would raise.
        self._pipe = io.FileIO(pipe)
        self._mirror = mirror
        self._on_whole = on_whole
        self._on_end = on_end
        self._frames = Frames()
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe, self._begin)
        self._timer: asyncio.TimerHandle | None = None

    def catch_up(self) -> bool:
        """Hear all that was told by now; whether that was anything."""
        read, buffer, heard = self._pipe.readinto, self._buffer, False
        # To its very end, as a front that was cut off finds it only there.
        while (count := read(buffer)) is not None:
            if not count:
                self._on_end()
                break
            heard = True
            for payload in self._frames.cut(bytes(self._view[:count])):
                if apply(decode_news(payload), self._mirror):
                    self._on_whole()
        return heard

    def close(self) -> None:
        """Hear no more."""
        self._loop.remove_reader(self._pipe.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._pipe.close()

    def _begin(self) -> None:
        """Hear what has come, and look again a little later instead of whenever more comes."""
        self._loop.remove_reader(self._pipe.fileno())
        self._go_on()

    def _go_on(self) -> None:
        if self.catch_up():
            self._timer = self._loop.call_later(_GATHER_SECONDS, self._go_on)
        else:
            self._loop.add_reader(self._pipe.fileno(), self._begin)
