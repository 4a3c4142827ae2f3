"""A real nginx, started by the tests with a configuration of theirs."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.process import WAIT_SECONDS

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="needs nginx (Debian: apt-get install nginx-light)"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def adapted(example: Path, changes: Mapping[str, str]) -> str:
    """An example with what an operator would change."""
    text = example.read_text("utf-8")
    for found, wanted in changes.items():
        assert text.count(found) == 1, found
        text = text.replace(found, wanted)
    return text


@contextmanager
def running_nginx(directory: Path, configuration: str, port: int) -> Iterator[None]:
    """nginx with that configuration, listening at that port of this machine."""
    assert NGINX
    path, log_path = directory / "nginx.conf", directory / "nginx.log"
    path.write_text(configuration, "utf-8")
    options = f"daemon off; pid {directory}/nginx.pid;"
    if os.geteuid() == 0:
        options += " user root;"  # As who else may write to the test's directory.
    command = [NGINX, "-p", str(directory), "-e", "stderr", "-c", str(path), "-g", options]
    with log_path.open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                assert process.poll() is None, log_path.read_text()
                assert time.monotonic() < deadline
                try:
                    socket.create_connection(("127.0.0.1", port), WAIT_SECONDS).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            yield
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)
