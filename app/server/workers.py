"""The back of several fronts: starts them, starts them again, and ends them.

This process has the ledger and no connections but theirs. Each front has a listening socket of its own
on the one address, and the kernel spreads clients over them. The sockets stay open here, so that while a
front is being started again its clients wait instead of being refused.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

import structlog

from app.main import Back
from app.server.desk import Desk
from app.server.gathering import Gathering
from app.server.link import Word
from app.server.telling import Line, Telling
from app.web.forward import Backroom

# A front that ends before it has served, so often in a row, would do so for ever.
_EARLY_DEATHS_MAX: Final = 5
# How often fronts are asked whether they turn, and after how many times without a word they are ended.
_PING_SECONDS: Final = 1.0
_SILENT_PINGS_MAX: Final = 10
# A front reads its modules before its first word, on a machine that may have better to do.
_STARTING_PINGS_MAX: Final = 60
# What a front has on top of its drain to be gone.
_LEAVING_SECONDS: Final = 0.5
# How long a front takes to exit that answers nobody any more.
_EXIT_SECONDS: Final = 1.0
# What passes over a socket pair at once: a turn's requests, or a part of a large body.
_SOCKET_BYTES: Final = 2**20

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Workers:
    """As many fronts as there are sockets. `on_deaths` is called when they cannot be kept alive."""

    def __init__(self, back: Back, on_deaths: Callable[[str], None], drain_seconds: float) -> None:
        self._back = back
        self._backroom = Backroom(back.handlers, back.counts)
        self._gathering = Gathering(back.counts)
        back.metrics.gather = self._gathering.gather
        self._on_deaths = on_deaths
        self._drain_seconds = drain_seconds
        self._fronts: dict[int, _Front] = {}
        self._telling: Telling
        self._is_complete = asyncio.Event()
        self.stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Have it end."""
        if not self.stopping.done():
            self.stopping.set_result(None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note that the process is to end."""
        self.stop()

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Keep a front behind each socket until told to stop."""
        self._telling = Telling(self._back.ledger, self._release)
        loop = asyncio.get_running_loop()
        keepers = [loop.create_task(self._keep(*each)) for each in enumerate(sockets)]
        tasks = [*keepers, loop.create_task(self._note_serving(sockets)), loop.create_task(self._ping())]
        await self.stopping
        for listener in sockets:
            listener.close()
        for task in tasks[len(keepers) :]:
            task.cancel()
        for front in self._fronts.values():
            front.end()
        await asyncio.wait(keepers, timeout=self._drain_seconds + _LEAVING_SECONDS)
        for front in self._fronts.values():
            front.cut_off("it has taken too long to end")
        await asyncio.wait(keepers)

    def _release(self) -> None:
        for front in self._fronts.values():
            front.desk.release()

    async def _keep(self, index: int, listener: socket.socket) -> None:
        """Keep a front behind a socket."""
        early_deaths = 0
        while not self.stopping.done():
            try:
                front = await self._start(index, listener)
            except OSError as error:
                self._on_deaths(f"worker {index} cannot be started: {error.strerror}")
                break
            await front.lost.wait()
            status = await front.ended()
            del self._fronts[index]
            self._gathering.leave(index)
            if self.stopping.done():
                break
            reason = front.reason or _word_status(status)
            self._gathering.note_restart()
            log.warning("worker_died", worker=index, pid=front.pid, reason=reason)
            early_deaths = 0 if front.is_serving else early_deaths + 1
            if early_deaths >= _EARLY_DEATHS_MAX:
                self._on_deaths(
                    f"worker {index} died {early_deaths} times before it served, at last: {reason}"
                )

    async def _start(self, index: int, listener: socket.socket) -> "_Front":
        """Start a front behind a socket. Raises OSError."""
        near, far = socket.socketpair()
        reading, writing = os.pipe()
        for end in (near, far):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        try:
            process = _spawn(far.fileno(), reading, listener.fileno())
        except OSError:
            near.close()
            os.close(writing)
            raise
        finally:
            far.close()
            os.close(reading)
        front = self._fronts[index] = _Front(process, writing, self._telling)
        front.desk = Desk(
            self._back.ingest,
            self._backroom,
            self._telling.hurry,
            partial(self._heed, front),
            self._back.ledger.note_clock,
            front.note_lost,
            front.cut_off,
        )
        await asyncio.get_running_loop().create_unix_connection(lambda: front.desk, sock=near)
        self._gathering.join(index, front.desk)
        log.info("worker_started", worker=index, pid=front.pid)
        if self.stopping.done():
            front.end()
        return front

    def _heed(self, front: "_Front", word: Word) -> None:
        if word is Word.HEARING:
            # Not before: until its modules are read nobody empties its pipe, and all answers would wait.
            self._telling.join(front.line)
        elif word is Word.SERVING:
            front.is_serving = True
            self._is_complete.set()

    async def _note_serving(self, sockets: list[socket.socket]) -> None:
        """Say so when every front has opened its door for the first time."""
        while sum(front.is_serving for front in self._fronts.values()) < len(sockets):
            self._is_complete.clear()
            await self._is_complete.wait()
        host, port = sockets[0].getsockname()[:2]
        log.info("serving", host=host, port=port, workers=len(sockets))

    async def _ping(self) -> None:
        """End fronts that hang."""
        while True:
            await asyncio.sleep(_PING_SECONDS)
            for front in list(self._fronts.values()):
                front.ping()


class _Front:
    """A front as its back sees it."""

    desk: Desk

    def __init__(self, process: subprocess.Popen[bytes], pipe: int, telling: Telling) -> None:
        self.line = Line(pipe, self.cut_off)
        self.lost = asyncio.Event()
        self.reason = ""
        """Why it was ended, where it was."""
        self.is_serving = False
        self._process = process
        self._telling = telling
        self._silent_pings = 0

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def end(self) -> None:
        """Have it answer what it has, and end."""
        self._process.terminate()

    def cut_off(self, reason: str) -> None:
        """End it at once: before anyone is told what it does not know."""
        self.reason = self.reason or reason
        self._process.kill()
        self._telling.leave(self.line)
        self.desk.close()

    def note_lost(self) -> None:
        """It has closed its socket, which it does by ending alone."""
        self._telling.leave(self.line)
        self.lost.set()

    async def ended(self) -> int:
        """Its exit status, now that it has closed its socket."""
        return await asyncio.to_thread(self._wait)

    def _wait(self) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_EXIT_SECONDS)
        self._process.kill()
        return self._process.wait()

    def ping(self) -> None:
        """Ask it whether it turns; one that has not said anything for long is ended."""
        if self.desk.was_heard:
            self._silent_pings = 0
        self.desk.was_heard = False
        self._silent_pings += 1
        if self._silent_pings > (_SILENT_PINGS_MAX if self.is_serving else _STARTING_PINGS_MAX):
            self.cut_off("it has not said a word for too long")
        self.desk.ping()


def _spawn(*handed: int) -> subprocess.Popen[bytes]:
    """Start a front, and hand it these files."""
    # In a group of its own: an interrupt from a terminal is for the back alone, which ends it.
    return subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
        [sys.executable, "-m", "app.server.front", *map(str, handed)],
        pass_fds=handed,
        process_group=0,
    )


def _word_status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
