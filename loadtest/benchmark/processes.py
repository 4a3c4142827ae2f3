"""What the benchmark starts: each command in a session of its own, on one core, bounded in time.

Whatever ends the benchmark (its last line, a failure, an interrupt) ends every one of them; should it
be killed outright, `timeout` does, later.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from loadtest.benchmark.machine import CLOCK_TICKS_PER_SECOND

_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_SECONDS: Final = 5.0


class Process:
    """A command, with all it starts in turn, and what it wrote."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int,
        seconds_max: float,
        written: Path,
        environment: Mapping[str, str],
    ) -> None:
        bounds = ["timeout", "--kill-after=5", str(seconds_max), "taskset", "--cpu-list", str(core)]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._written = written
        with written.open("wb") as output:
            self._popen = subprocess.Popen(
                [*bounds, *command],
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def output(self) -> str:
        """All it wrote so far."""
        return self._written.read_text("utf-8", "replace")

    def wait(self, seconds: float) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        return self._popen.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def cpu_seconds(self) -> float:
        """Processor time its session has taken so far."""
        ticks = 0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # It may have ended since it was listed.
                # The name before it may hold anything, a bracket too.
                fields = status.read_text("utf-8", "replace").rpartition(")")[2].split()
                session, user_ticks, system_ticks = fields[3], fields[11], fields[12]
                if int(session) == self._popen.pid:
                    ticks += int(user_ticks) + int(system_ticks)
        return ticks / CLOCK_TICKS_PER_SECOND


class Processes:
    """Every process there is; none outlives the context."""

    def __init__(self, directory: Path, seconds_max: float) -> None:
        """What they write goes to files in `directory`; `seconds_max` bounds each."""
        self._directory = directory
        self._seconds_max = seconds_max
        self._all: list[Process] = []
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(*self._all)

    def start(
        self,
        command: Sequence[str],
        core: int,
        *,
        seconds_max: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a command on a core."""
        self._started += 1
        with uninterrupted():
            process = Process(
                command,
                core=core,
                seconds_max=seconds_max or self._seconds_max,
                written=self._directory / f"{self._started}.log",
                environment=environment or {},
            )
            self._all.append(process)
        return process

    def end(self, *processes: Process) -> None:
        """End processes together: politely first, and then certainly."""
        with uninterrupted():
            for process in processes:
                process.signal(signal.SIGTERM)
            give_up = time.monotonic() + _END_SECONDS
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, give_up - time.monotonic()))
                # Also where its first process is gone: another of its session may not be.
                process.signal(signal.SIGKILL)
                process.wait(_END_SECONDS)
            self._all = [process for process in self._all if process not in processes]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off interrupts until the end of the context, where one raises KeyboardInterrupt."""
    interrupted = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    before = {number: signal.signal(number, remember) for number in _heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt


def heed_interrupts() -> None:
    """Make every way of being told to end the same KeyboardInterrupt."""
    for number in _heeded():
        signal.signal(number, signal.default_int_handler)


def _heeded() -> list[signal.Signals]:
    """The interrupts that whoever started the benchmark has not chosen to ignore, as nohup does."""
    return [number for number in _INTERRUPTS if signal.getsignal(number) is not signal.SIG_IGN]


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
