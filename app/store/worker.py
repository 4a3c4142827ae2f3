"""One thread that runs blocking calls for the event loop, one after another.

The standard library's executor costs several times as much a call and joins its threads at exit,
where a disk that hangs would hold the process.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")
_Job = Callable[[], None]


class Worker:
    """A daemon thread with a queue. Bounded by its users, who await each call."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
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
        while job := self._jobs.get():
            job()


def _succeed(future: "asyncio.Future[Result]", result: Result) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Result]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
