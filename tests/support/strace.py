"""Faults put between the service and the kernel, by strace: no build, no privileges, exact points.

`strace` counts calls for each thread. All calls that write the database are made by the store's own
thread, so the n-th of them is the n-th in its order. (The feed's index has a thread of its own.)
"""

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.process import WAIT_SECONDS


def works(*command: str) -> bool:
    """Whether this machine lets us run such a command at all."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=WAIT_SECONDS).returncode == 0


def strace(trace: Path, *paths: Path, **faults: str) -> tuple[str, ...]:
    """A command that runs another with a fault at calls of these names; `trace` tells where it struck.

    Where there are `paths`, only calls on these files count. It is started as that other process
    itself, with the tracer beside it.
    """
    injections = (("-e", f"inject={call}:{fault}") for call, fault in faults.items())
    options = ["-e", f"trace={','.join(faults)}", *(word for pair in injections for word in pair)]
    options += [word for path in paths for word in ("-P", str(path))]
    if not any(fault.startswith("signal=") for fault in faults.values()):
        # Other calls go at full speed. (Under a filter strace 6.1 forgets to send its signals.)
        options.append("--seccomp-bpf")
    return ("strace", "-D", "-f", "-y", "-qq", "-o", str(trace), *options)


@functools.cache
def can_strace() -> bool:
    """Whether this machine lets us trace at all."""
    return works(*strace(Path("/dev/null"), fdatasync="delay_enter=1"), "true")


needs_strace = pytest.mark.skipif(not can_strace(), reason="strace cannot trace here")
