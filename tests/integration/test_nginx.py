"""The example of a proxy, deploy/nginx.conf, in front of the real service."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.process import WAIT_SECONDS, ServiceProcess

EXAMPLE = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
OPENSSL = shutil.which("openssl")

pytestmark = pytest.mark.skipif(
    NGINX is None or OPENSSL is None,
    reason="needs nginx and openssl (Debian: apt-get install nginx-light)",
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def adapted(directory: Path, changes: dict[str, str]) -> str:
    """The example with what an operator would change, and with files of its own."""
    text = EXAMPLE.read_text("utf-8")
    for found, wanted in changes.items():
        assert text.count(found) == 1, found
        text = text.replace(found, wanted)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return text.replace("http {\n", f"http {{\n{paths}access_log off;\n", 1)


@contextmanager
def proxied(
    directory: Path, upstream: str, changes: dict[str, str] | None = None
) -> Iterator[tuple[str, ssl.SSLContext]]:
    """nginx as the example has it, in front of that service; its URL, and who is to be trusted."""
    certificate, key = directory / "millrace.crt", directory / "millrace.key"
    assert OPENSSL
    assert NGINX
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *(
                "-nodes",
                "-days",
                "1",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        adapted(
            directory,
            {
                "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
                "127.0.0.1:8000": str(urlsplit(upstream).netloc),
                "/etc/nginx/millrace.crt": str(certificate),
                "/etc/nginx/millrace.key": str(key),
                "worker_processes auto;": "worker_processes 1;",
                **(changes or {}),
            },
        ),
        "utf-8",
    )
    options = f"daemon off; pid {directory}/nginx.pid;"
    if os.geteuid() == 0:
        options += " user root;"  # As who else may write to the test's directory.
    command = [NGINX, "-p", str(directory), "-e", "stderr", "-c", str(configuration), "-g", options]
    with (directory / "nginx.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                assert process.poll() is None, (directory / "nginx.log").read_text()
                assert time.monotonic() < deadline
                try:
                    socket.create_connection(("127.0.0.1", port), WAIT_SECONDS).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            yield f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=str(certificate))
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)


def body() -> dict[str, int]:
    return {"amount": 1, "timestamp": time.time_ns() // 1_000_000}


def test_what_is_asked_through_it_is_answered_as_without_it(tmp_path: Path) -> None:
    with (
        ServiceProcess({}) as service,
        proxied(tmp_path, service.serving()) as (url, trusted),
        httpx.Client(base_url=url, verify=trusted, timeout=WAIT_SECONDS) as client,
    ):
        answer = client.post("/transactions", json=body(), headers={"X-Request-ID": "mine"})
        assert answer.status_code == 201
        assert answer.headers["x-request-id"] == "mine"
        items = [body()] * 10_000
        assert client.post("/transactions/batch", json=items).json()["accepted"] == 10_000
        assert client.get("/stats").json()["count"] == 10_001
        refusal = client.post("/transactions", content=b"x" * 65_537)
        assert (refusal.status_code, refusal.json()["code"]) == (413, "body_too_large")
        assert client.post("/transactions/batch", content=b" " * (8 * 2**20)).status_code == 400
        assert client.post("/transactions/batch", content=b" " * (8 * 2**20 + 1)).status_code == 413
        assert client.get("/stats", headers={"x": "v" * 8000}).status_code == 200


def test_nothing_is_sent_on_a_connection_that_is_about_to_be_closed(tmp_path: Path) -> None:
    async def main(service: ServiceProcess, url: str, trusted: ssl.SSLContext) -> None:
        async with httpx.AsyncClient(base_url=url, verify=trusted, timeout=WAIT_SECONDS) as client:
            assert (await client.post("/transactions", json=body())).status_code == 201
            # The service stands still while its time for an idle connection runs out, so that a
            # request on that connection is sure to come between the decision to close it and the close.
            await asyncio.sleep(1.3)
            os.kill(service.pid, signal.SIGSTOP)
            await asyncio.sleep(1.2)
            posting = asyncio.create_task(client.post("/transactions", json=body()))
            await asyncio.sleep(0.2)
            os.kill(service.pid, signal.SIGCONT)
            assert (await posting).status_code == 201

    shorter = {"keepalive_timeout 4s;": "keepalive_timeout 1s;"}
    with (
        ServiceProcess({"KEEP_ALIVE_SECONDS": "2"}) as service,
        proxied(tmp_path, service.serving(), shorter) as (url, trusted),
    ):
        asyncio.run(main(service, url, trusted))
