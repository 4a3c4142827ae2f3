"""How each server is started on a port. What it keeps or needs lies in a directory of its own."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from app.settings import Settings
from loadtest.benchmark.load import installed
from loadtest.peers.noop import BODY

_GO_SOURCE: Final = Path(__file__).parents[1] / "peers" / "go" / "main.go"
_FAST_LANE: Final = "FAST_LANE"

POSTGRES: Final = "MILLRACE_BENCHMARK_POSTGRES"
"""Names a database, by its URL. Its server runs beside client and service, on any core."""

_NGINX: Final = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server_tokens off;
    keepalive_requests 1000000000;
    client_max_body_size 8m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        default_type application/json;
        location / {{ return 201 '{body}'; }}
    }}
}}
"""


class UnavailableError(Exception):
    """This arm cannot run here; the message says what is missing."""


class Start(msgspec.Struct, frozen=True):
    """The command of a server, and what must have been run before it."""

    command: Sequence[str]
    environment: Mapping[str, str] = {}
    build: Sequence[str] = ()


class Server(msgspec.Struct, frozen=True):
    """One server process. `prepare` is told its directory and port."""

    name: str
    prepare: Callable[[Path, int], Start]


def ours(name: str, database: str, fast_lane: bool | None = None) -> Server:
    """Millrace itself; `database` may name the {directory}. No `fast_lane` means as it is by default."""

    def prepare(directory: Path, port: int) -> Start:
        command = [sys.executable, "-m", "app"]
        environment = {"PORT": str(port), "DATABASE_URL": database.format(directory=directory)}
        build: list[str] = []
        if database == POSTGRES:
            if not os.environ.get(POSTGRES):
                raise UnavailableError(f"{POSTGRES} names no database")
            environment["DATABASE_URL"] = os.environ[POSTGRES]
            build = [*command, "migrate"]
        # Before there is a fast lane, every lane is the plain one.
        if _has_fast_lane() and fast_lane is not None:
            environment[_FAST_LANE] = "on" if fast_lane else "off"
        elif fast_lane:
            raise UnavailableError(f"this version has no setting {_FAST_LANE}")
        return Start(command, environment, build)

    return Server(name, prepare)


def _has_fast_lane() -> bool:
    return any(field.encode_name == _FAST_LANE for field in msgspec.structs.fields(Settings))


def _python_peer(module: str) -> Callable[[Path, int], Start]:
    return lambda _, port: Start([sys.executable, "-m", f"loadtest.peers.{module}", str(port)])


def _nginx(directory: Path, port: int) -> Start:
    program = _installed("nginx", "nginx-light")
    configuration = directory / "nginx.conf"
    text = _NGINX.format(directory=directory, port=port, body=BODY.decode())
    configuration.write_text(text, "utf-8")
    return Start([program, "-e", "stderr", "-p", str(directory), "-c", str(configuration)])


def _go(directory: Path, port: int) -> Start:
    program = str(directory / "peer")
    # The standard library alone: nothing to fetch, and no C compiler needed.
    environment = {
        "GO111MODULE": "off",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOMAXPROCS": "1",
    }
    build = [_installed("go", "golang-go"), "build", "-o", program, str(_GO_SOURCE)]
    return Start([program, str(port)], environment, build)


def _redis(directory: Path, port: int) -> Start:
    program = _installed("redis-server", "redis-server")
    _installed("redis-benchmark", "redis-tools")
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "loglevel": "warning",
    }
    return Start([program, *(word for name, value in options.items() for word in (f"--{name}", value))])


def _installed(program: str, package: str) -> str:
    path = installed(program)
    if path is None:
        raise UnavailableError(f"{program} is not installed (Debian: apt-get install {package})")
    return path


FASTAPI: Final = Server("fastapi", _python_peer("fastapi_ring"))
UVICORN: Final = Server("uvicorn", _python_peer("noop"))
NGINX: Final = Server("nginx", _nginx)
GO: Final = Server("go", _go)
REDIS: Final = Server("redis", _redis)
