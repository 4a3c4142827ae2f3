"""The service as its users run it: `python -m app`, a process of its own, on a port of its own."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.plain_http import plain_client

WAIT_SECONDS = 30.0


class ServiceProcess:
    """One run of the service. Its log is read as it is written, and is the only thing waited for."""

    def __init__(
        self,
        environment: Mapping[str, str],
        command: tuple[str, ...] = (),
        *,
        last_event_read: str | None = None,
    ) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._last_event_read = last_event_read
        self.events: list[dict[str, Any]] = []
        self._news: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        # A pipe of our own, whose reading end a test may close.
        reading, log = os.pipe()
        self._log = os.fdopen(reading, encoding="utf-8")
        self._process = subprocess.Popen(
            [*command, sys.executable, "-m", "app"],
            env={**inherited, "PORT": "0", "DATABASE_URL": "memory://", **environment},
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        os.close(log)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        assert self._process.stderr is not None
        self._reader.join(WAIT_SECONDS)
        self._process.stderr.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next log entry of that name. Fails when the process ends without it."""
        entry = self._next(event)
        assert entry is not None, f"ended before {event!r}: {self.complaint()}"
        return entry

    def serving(self) -> str:
        """The URL it serves on, once it does."""
        entry = self.wait_for("serving")
        return f"http://{entry['host']}:{entry['port']}"

    def serving_unless_ended(self) -> str | None:
        """The URL it serves on, once it does; None where it ended before."""
        entry = self._next("serving")
        return None if entry is None else f"http://{entry['host']}:{entry['port']}"

    def client(self) -> httpx.Client:
        """A client of it, once it serves."""
        return plain_client(self.serving())

    def kill(self) -> None:
        """End it as a power cut would, together with whatever it was started under."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(WAIT_SECONDS)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.send_signal(signal.SIGTERM)

    def exit_status(self) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait(WAIT_SECONDS)

    def complaint(self) -> str:
        """What it wrote to standard error, once it has ended."""
        assert self._process.stderr is not None
        self._process.wait(WAIT_SECONDS)
        return self._process.stderr.read()

    def _next(self, event: str) -> dict[str, Any] | None:
        while True:
            entry = self._news.get(timeout=WAIT_SECONDS)
            if entry is None or entry["event"] == event:
                return entry

    def _read_log(self) -> None:
        for line in self._log:
            entry = json.loads(line)
            self.events.append(entry)
            self._news.put(entry)
            if entry["event"] == self._last_event_read:
                break
        self._log.close()
        self._news.put(None)
