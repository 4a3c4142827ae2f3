"""Files and directories as a database needs them: there after a power loss, and nobody else's."""

import fcntl
import os
from pathlib import Path

from app.store.base import StoreUnusable


def make_directory(directory: Path) -> None:
    """Make a directory whose own entry survives a power loss, as the rows in it are to."""
    if not directory.exists():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Have its entries on the disk."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def lock(path: Path) -> int:
    """Keep a second process off the database: two rings over one file would both be wrong.

    The open file, which is to be closed in the end. Raises StoreUnusable.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise StoreUnusable(f"{path.name.removesuffix('-lock')} is in use by another process") from None
    return file
