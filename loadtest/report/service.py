"""The service under measurement: `python -m app`, a process of its own, on a core of its own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from loadtest.report.wire import TIMEOUT_SECONDS, Address

ROOT: Final = Path(__file__).parents[2]
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class ServiceError(Exception):
    """The service did not start; the message is the last it wrote."""


class Cores(NamedTuple):
    """Which core the service has, and which one the client; None where there are no two."""

    service: int | None
    client: int | None


def choose_cores() -> Cores:
    """The first and the last of the cores this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1]) if len(allowed) > 1 else Cores(None, None)


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Whatever is started inside, threads and all, stays on that core."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Service:
    """One run of the service, from its start to its end."""

    def __init__(self, core: int | None, **settings: str) -> None:
        # An idle connection is none of these measurements' business.
        fixed = {"HOST": "127.0.0.1", "PORT": "0", "LOG_LEVEL": "info", "KEEP_ALIVE_SECONDS": "600"}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        # No pipe: nobody has to read along while it is measured.
        self._log = os.memfd_create("log of the service")
        with on_core(core):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app"],
                cwd=ROOT,
                env={**inherited, **fixed, **settings},
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.address = self._wait_until_serving()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def resident_mib(self) -> float:
        """Resident memory, as the kernel has it."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def busy_seconds(self) -> float:
        """Processor time taken so far."""
        # The second field, the command in parentheses, may hold spaces; times follow it.
        fields = Path(f"/proc/{self._process.pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def _wait_until_serving(self) -> Address:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            for line in self._lines():
                if line.endswith(b"}\n") and (entry := json.loads(line))["event"] == "serving":
                    return entry["host"], entry["port"]
            time.sleep(0.01)
        last = self._lines()[-1:] or [b"nothing was written"]
        raise ServiceError(f"the service did not start: {last[0].decode().strip()}")

    def _lines(self) -> list[bytes]:
        # `pread`: the service writes at the place this very file description stands.
        return os.pread(self._log, 1 << 20, 0).splitlines(keepends=True)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._log)
