"""One process: opens the ledger, then the door; shuts the door, then the ledger."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Final, cast

import msgspec
import structlog
import uvicorn
import uvloop

from app.main import Front, Service, build_back, build_service
from app.server.lag import LoopLag
from app.server.listen import BACKLOG, listen
from app.server.logs import configure_logs
from app.server.workers import Workers
from app.settings import Settings
from app.store.base import StoreFailed, StoreRefused, StoreUnusable
from app.web.batch import BATCH_BYTES_MAX
from app.web.bodies import BODIES_BYTES_MAX, Bodies
from app.web.protocol import Protocol
from app.web.request_log import RequestLog
from app.web.room import TURNED_AWAY_MAX, Room

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1

# Docker sends SIGKILL ten seconds after SIGTERM: answering and closing must both fit before it.
_DRAIN_SECONDS: Final = 6
_CLOSE_SECONDS: Final = 2.0

# What is open besides connections: the database's files, the loop's own, and room for the next library.
_OTHER_FILES_MAX: Final = 32

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def serve(settings: Settings) -> int:
    """Serve until a signal or a failure of the store; the exit status."""
    configure_logs(settings.log_level)
    os.umask(0o077)  # What is kept is nobody else's to read.
    try:
        listeners = listen(settings.host, settings.port, settings.workers)
    except OSError as error:
        return _give_up(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}")
    if settings.workers == 1:
        settings = msgspec.structs.replace(settings, connections_max=make_room(settings.connections_max))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, listeners))


async def _serve(settings: Settings, listeners: list[socket.socket]) -> int:
    log.info("starting", **_shown(settings))
    failures: list[str] = []

    def on_failure(reason: str) -> None:
        failures.append(reason)
        log.critical("store_failed", reason=reason)
        server.stop()

    def on_deaths(reason: str) -> None:
        failures.append(reason)
        _give_up(reason)
        server.stop()

    server: Server | Workers
    if settings.workers == 1:
        service = build_service(settings, on_failure)
        ledger, counts = service.ledger, service.counts
        server = Server(server_config(settings, service), service.end_streams)
    else:
        back = build_back(settings, on_failure)
        ledger, counts = back.ledger, back.counts
        server = Workers(back, on_deaths, _DRAIN_SECONDS)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    opening = loop.create_task(ledger.open())
    await asyncio.wait((opening, server.stopping), return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        return EXIT_OK  # Nothing was taken in yet, and reading back a long window may take a while.
    try:
        opening.result()
    except (StoreUnusable, StoreFailed, StoreRefused) as error:
        return _give_up(str(error))
    LoopLag(counts.lag)
    await server.serve(sockets=listeners)
    log.info("draining")
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await ledger.close()
    except (TimeoutError, StoreFailed) as error:
        failures.append(str(error) or "the store did not close in time")
        log.critical("close_failed", reason=failures[-1])
    log.info("stopped")
    return EXIT_FAILURE if failures else EXIT_OK


class Server(uvicorn.Server):
    """uvicorn, told of signals from the start on, and leaving the exit status to us."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams
        self.stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note that the process is to end."""
        super().handle_exit(sig, frame)
        if not self.stopping.done():
            self.stopping.set_result(None)

    def stop(self) -> None:
        """Have it end."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is in flight; what takes too long is told so."""
        self._end_streams()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.cut_short()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door, and say so."""
        await super().startup(sockets)
        for listener in sockets or ():
            self.note_serving(listener)

    def note_serving(self, listener: socket.socket) -> None:
        """Say that the door is open."""
        host, port = listener.getsockname()[:2]
        log.info("serving", host=host, port=port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would raise the signal once more, before the ledger is closed."""
        yield


def server_config(settings: Settings, service: Service | Front) -> uvicorn.Config:
    """uvicorn, set for throughput: what it does for each request beyond our answer is left out."""
    counts = service.counts
    request_log = RequestLog(asyncio.get_running_loop(), settings.slow_request_ms)
    room = Room(settings.connections_max, request_log, counts)
    # Divided among processes, but each has room for one of the largest.
    bodies = Bodies(max(BODIES_BYTES_MAX // settings.workers, BATCH_BYTES_MAX))
    connect = partial(
        Protocol,
        fast_lane=service.fast_lane,
        room=room,
        bodies=bodies,
        request_log=request_log,
        counts=counts,
    )
    # uvicorn only ever calls it, as it would call a class.
    protocol = cast(type[asyncio.Protocol], connect)
    return uvicorn.Config(
        service.application,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        log_level="error",
        # Behind proxies that are trusted the client is the one they name.
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


def make_room(connections_max: int) -> int:
    """Raise the limit of open files as far as these connections need; how many there is room for."""
    besides = TURNED_AWAY_MAX + _OTHER_FILES_MAX
    wanted = connections_max + besides
    limit, limit_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        limit = wanted if limit_max == resource.RLIM_INFINITY else min(wanted, limit_max)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit_max))
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit < wanted:
            room = max(limit - besides, 1)
            log.warning("fewer_connections", connections_max=room, open_files_max=limit)
            return room
    return connections_max


def _shown(settings: Settings) -> dict[str, object]:
    return {
        "database": settings.database,
        **({"exchange": settings.exchange, "node": settings.node} if settings.redis_url else {}),
        "window_seconds": settings.window_seconds,
        "late": settings.late.value,
        "auth": settings.authentication,
        "changed": settings.changed,
    }


def _give_up(reason: str) -> int:
    sys.stderr.write(f"millrace: {reason}\n")
    return EXIT_FAILURE
