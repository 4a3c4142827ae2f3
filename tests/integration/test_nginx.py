"""The example of a proxy, deploy/nginx.conf, in front of the real service."""

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.nginx import NGINX, adapted, free_port, running_nginx
from tests.support.process import WAIT_SECONDS, ServiceProcess

EXAMPLE = Path(__file__).parents[2] / "deploy" / "nginx.conf"
OPENSSL = shutil.which("openssl")

pytestmark = pytest.mark.skipif(
    NGINX is None or OPENSSL is None,
    reason="needs nginx and openssl (Debian: apt-get install nginx-light)",
)


def own_files(directory: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return f"{paths}access_log off;\n"


@contextmanager
def proxied(
    directory: Path, upstream: str, changes: dict[str, str] | None = None
) -> Iterator[tuple[str, ssl.SSLContext]]:
    """nginx as the example has it, in front of that service; its URL, and who is to be trusted."""
    certificate, key = directory / "millrace.crt", directory / "millrace.key"
    assert OPENSSL
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
    configuration = adapted(
        EXAMPLE,
        {
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "127.0.0.1:8000": str(urlsplit(upstream).netloc),
            "/etc/nginx/millrace.crt": str(certificate),
            "/etc/nginx/millrace.key": str(key),
            "worker_processes auto;": "worker_processes 1;",
            "http {\n": f"http {{\n{own_files(directory)}",
            **(changes or {}),
        },
    )
    with running_nginx(directory, configuration, port):
        yield f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=str(certificate))


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
