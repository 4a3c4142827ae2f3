"""What it was measured on, without a word that names the machine or its owner."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

import apsw

from loadtest.report.loads import sync_milliseconds
from loadtest.report.service import ROOT, Cores

_PACKAGES: Final = ("starlette", "uvicorn", "uvloop", "httptools", "msgspec", "apsw")


def machine(cores: Cores, directory: Path) -> dict[str, str]:
    """Processor, memory, kernel and disk, in words."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(os.cpu_count()),
        "placement": (
            "service and client share one core"
            if cores.service is None
            else f"service on core {cores.service}, client on core {cores.client}"
        ),
        "memory": f"{memory_bytes / 2**30:.1f} GiB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "file system": _file_system(directory),
        "fdatasync of 4 KiB": f"{sync_milliseconds(directory):.2f} ms (median)",
    }


def versions() -> dict[str, str]:
    """Everything that takes part in an answer."""
    return {
        "Millrace": _commit() or "not under version control",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": apsw.sqlite_lib_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _file_system(directory: Path) -> str:
    """The type of the file system a directory lies on: the mount with the longest matching path."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    where = directory.resolve()
    holding = [mount for mount in mounts if where.is_relative_to(mount[0])]
    return max(holding, key=lambda mount: len(mount[0]))[1]


def _commit() -> str:
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty=, changed since"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"commit {shown.stdout.strip()}"
