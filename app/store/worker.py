"""One thread that runs blocking calls for the event loop, one after another.

The standard library's executor costs several times as much a call and joins its threads at exit,
where a disk that hangs would hold the process.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")
_Job = Callable[[], None]


class Worker:
    """A daemon thread with a queue. Bounded by its users, who await each call."""

    def __init__(self, name: str, niceness: int = 0) -> None:
        """`niceness`: how far its thread stands back where processors are short; on Linux alone."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._niceness = niceness
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def run(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run `call` in the thread; the future has its result or its exception."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def job() -> None:
            try:
                result = call()
            except BaseException as error:
                loop.call_soon_threadsafe(_fail, future, error)
            else:
                loop.call_soon_threadsafe(_succeed, future, result)

        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """End the thread once what is queued has run."""
        self._jobs.put(None)

    def _run(self) -> None:
        # Elsewhere a thread has no priority of its own, and its number may be another process's.
        if self._niceness and sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while job := self._jobs.get():
            job()


def _succeed(future: "asyncio.Future[Result]", result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Result]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
