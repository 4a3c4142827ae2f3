"""A real Redis: a throwaway server, that may be killed, stopped in its tracks, and started again."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis

WAIT_SECONDS = 20.0
_PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")

needs_redis = pytest.mark.skipif(
    _PROGRAM is None,
    reason="Redis was NOT tested: it is not installed (Debian: apt-get install redis-server)",
)


class RedisServer:
    """Keeps nothing over a restart."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="millrace-redis-"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self._process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert _PROGRAM is not None
        # Each test has a database of its own.
        words = (
            "--databases",
            "64",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        )
        self._process = subprocess.Popen(
            [_PROGRAM, *words, "--save", "", "--appendonly", "no", "--dir", str(self._directory)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
            except redis.ConnectionError:
                assert self._process.poll() is None, "Redis did not start"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                return

    def client(self) -> redis.Redis:
        """A connection for a test's own questions."""
        return redis.Redis(port=self.port)

    def work(self) -> Mapping[str, int]:
        """What it has done so far: commands, and bytes that came and went."""
        with self.client() as client:
            info = client.info("stats")
        assert isinstance(info, dict)
        return {
            "commands": int(info["total_commands_processed"]),
            "bytes": int(info["total_net_input_bytes"]) + int(info["total_net_output_bytes"]),
        }

    def kill(self) -> None:
        """End it as a power cut would; what it knew is lost."""
        self._process.kill()
        self._process.wait(WAIT_SECONDS)

    def freeze(self) -> None:
        """Stop it where it stands: it takes connections, and answers nothing."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One for all tests of a file."""
    server = RedisServer()
    try:
        yield server
    finally:
        server.remove()
