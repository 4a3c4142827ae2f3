"""The machine a run took place on: its cores, its disk, and the versions of what ran."""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from loadtest.benchmark.load import installed

CLOCK_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")

_SYNC_BYTES: Final = 4096
_ANSWER_SECONDS: Final = 10.0

_PACKAGES: Final = (
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "msgspec",
    "apsw",
    "fastapi",
    "pydantic",
    "pydantic-core",
)
_PROGRAMS: Final = {
    "wrk": ("wrk", "-v"),
    "nginx": ("nginx", "-v"),
    "go": ("go", "version"),
    "redis-server": ("redis-server", "--version"),
    "redis-benchmark": ("redis-benchmark", "--version"),
}


def choose_cores() -> tuple[int, int] | None:
    """A core for the servers and one for the load, or None where there is only one.

    They are two of one core's threads only where no other pair is left.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    siblings = _siblings(cores[0])
    return cores[0], next((core for core in cores if core not in siblings), cores[1])


def _siblings(core: int) -> set[int]:
    """The threads of the core that this one is a thread of."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        listed = path.read_text("utf-8")
    except OSError:
        return {core}
    spans = [part.partition("-") for part in listed.strip().split(",")]
    return {thread for low, _, high in spans for thread in range(int(low), int(high or low) + 1)}


def describe(server_core: int, load_core: int) -> dict[str, object]:
    """All that somebody who compares two runs would ask for."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "server_core": server_core,
        "load_core": load_core,
        "cores_are_siblings": load_core in _siblings(server_core),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _package(name))},
        "programs": {name: found for name in _PROGRAMS if (found := _program(*_PROGRAMS[name]))},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _program(name: str, flag: str) -> str | None:
    """The first line it says of itself."""
    path = installed(name)
    if path is None:
        return None
    try:
        said = subprocess.run(
            [path, flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (said.stdout.decode("utf-8", "replace").strip().splitlines() or [""])[0]


def busy_seconds(*cores: int) -> float:
    """How long these cores have worked since the machine started, whoever for."""
    ticks = 0
    for line in Path("/proc/stat").read_text("utf-8").splitlines():
        name, *fields = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, fields[:8])
            ticks += user + nice + system + sum(interrupts_and_stolen)
    return ticks / CLOCK_TICKS_PER_SECOND


def sync_times_us(directory: Path, seconds: float) -> list[float]:
    """How long each fdatasync took that followed an append, for so many seconds; sorted."""
    path = directory / "sync"
    times_us: list[float] = []
    page = os.urandom(_SYNC_BYTES)
    give_up = time.monotonic() + seconds
    with path.open("wb", buffering=0) as file:
        while time.monotonic() < give_up:
            file.write(page)
            started = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            times_us.append((time.perf_counter_ns() - started) / 1000)
    path.unlink()
    return sorted(times_us)
