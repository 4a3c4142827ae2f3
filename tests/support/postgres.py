"""A real PostgreSQL: one throwaway server for all tests, and a database of its own for each.

MILLRACE_TEST_POSTGRES names a server to use instead, by the URL of a user that may make databases.
"""

import asyncio
import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from app.store.postgres import migrate
from tests.support.ledger_file import Amounts

WAIT_SECONDS = 20.0
_NAMED = os.environ.get("MILLRACE_TEST_POSTGRES", "")
_ROOT = 0


def _programs() -> Path | None:
    """Where initdb and postgres are: Debian keeps them off the path."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres") is not None:
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in installed), key=lambda path: int(path.parent.name), default=None)


PROGRAMS = _programs()

needs_postgres = pytest.mark.skipif(
    not _NAMED and PROGRAMS is None,
    reason="PostgreSQL was NOT tested: it is not installed (Debian: apt-get install postgresql)",
)
needs_postgres_of_ours = pytest.mark.skipif(
    PROGRAMS is None,
    reason="PostgreSQL's faults were NOT tested: its server is not installed (Debian: postgresql)",
)


class PostgresServer:
    """A server that may be killed, stopped in its tracks, and started again."""

    def __init__(self) -> None:
        assert PROGRAMS is not None
        self._programs = PROGRAMS
        self._directory = Path(tempfile.mkdtemp(prefix="millrace-postgres-"))
        self._user: str | None = None
        if os.geteuid() == _ROOT:
            # It does not run as root.
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(self._directory, self._user)
        atexit.register(self.remove)
        self._data = self._directory / "data"
        words = ("--no-sync", "--auth=trust", "--username=millrace", "--encoding=UTF8", "--locale=C")
        self._run("initdb", f"--pgdata={self._data}", *words)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self._process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://millrace@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it lets someone in."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._directory,
            # Small: the machine has other things to do.
            "shared_buffers": "32MB",
            "max_connections": 40,
            "autovacuum": "off",
            "log_min_messages": "fatal",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self._data), *words],
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, "PostgreSQL did not start"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End all of it as a power cut would."""
        self._signal(signal.SIGSTOP)
        self._signal(signal.SIGKILL)
        self._process.wait(WAIT_SECONDS)

    def freeze(self) -> None:
        """Stop it where it stands: it takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        if self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        for pid in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [str(self._programs / program), *words],
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            cwd=self._directory,
            check=True,
            capture_output=True,
            timeout=WAIT_SECONDS,
        )


def _children(parent: int) -> Sequence[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Behind the name, which may have spaces in it: the state, and the parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


_numbers = itertools.count(1)
_databases: dict[object, str] = {}


@functools.cache
def server_of_ours() -> PostgresServer:
    """The throwaway server, which a test may kill if it starts it again."""
    return PostgresServer()


def _server_url() -> str:
    return _NAMED or server_of_ours().url


@functools.cache
def _template() -> str:
    """An empty database with the schema, that others are copied from."""
    return make_database(_server_url())


def make_database(server_url: str, template: str | None = None, *, is_migrated: bool = True) -> str:
    """The URL of a new database."""
    name = f"millrace_test_{os.getpid()}_{next(_numbers)}"
    like = "" if template is None else f" TEMPLATE {urlsplit(template).path[1:]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{like}".encode())
    if _NAMED:
        atexit.register(_drop, server_url, name)
    url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
    if template is None and is_migrated:
        with ThreadPoolExecutor(1) as executor:  # A loop may be running here.
            executor.submit(asyncio.run, migrate(url)).result(WAIT_SECONDS)
    return url


def _drop(server_url: str, name: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def database_url(owner: object) -> str:
    """The URL of an owner's database, which is made when it is first asked for."""
    if owner not in _databases:
        _databases[owner] = make_database(_server_url(), _template())
    return _databases[owner]


def new_database_url(*, is_migrated: bool = True) -> str:
    """The URL of a new database, on the server that may be killed where there is one of ours."""
    if PROGRAMS is not None and is_migrated and not _NAMED:
        return make_database(_server_url(), _template())
    return make_database(_server_url(), is_migrated=is_migrated)


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement as an operator would, who does not wait for ever for a lock."""
    options = f"-c statement_timeout={WAIT_SECONDS:g}s"
    with psycopg.connect(url, autocommit=True, options=options) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def rows_in_database(url: str) -> Amounts:
    """The amount of each row by its id."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT id, amount_units FROM transactions").fetchall()
    return {identifier.hex: units for identifier, units in found}


def ids(url: str) -> list[int]:
    """Those of the rows there are."""
    return sorted(identifier.int for (identifier,) in ask(url, "SELECT id FROM transactions"))
