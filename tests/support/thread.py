"""The service in a thread, on a real socket, with a clock that the test holds."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

import httpx
import msgspec
import uvicorn
import uvloop

from app.ledger.ledger import Ledger
from app.main import Front, build_back, build_service
from app.server.serve import server_config
from app.settings import Settings
from tests.support.house import House
from tests.support.plain_http import plain_client

WAIT_SECONDS = 30.0
# 2: every service of these tests is made of a back and a front, where its settings do not say more.
WORKERS = int(os.environ.get("MILLRACE_CONTRACT_WORKERS", "1"))


class Clock:
    """A wall clock that stands until it is told to move."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class ServiceThread(msgspec.Struct):
    """A running service: a client of it, its clock, and the parts a test may need to break."""

    client: httpx.Client
    address: tuple[str, int]
    clock: Clock
    ledger: Ledger
    failures: list[str]


@contextmanager
def serve(settings: Settings, clock: Clock) -> Iterator[ServiceThread]:
    """Run the service for as long as the context lasts.

    With more than one of `workers` it is made of a back and a front, each with its end of a real link.
    """
    if settings.workers < WORKERS:
        settings = msgspec.structs.replace(settings, workers=WORKERS)
    ready: Future[tuple[Ledger, Callable[[], object]]] = Future()
    failures: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        house = None
        if settings.workers == 1:
            service = build_service(settings, failures.append, clock)
            ledger, front = service.ledger, Front(service.application, service.fast_lane, service.counts)
            await ledger.open()
        else:
            back = build_back(settings, failures.append, clock)
            ledger = back.ledger
            await ledger.open()
            house = House(back)
            front = await house.add_front(settings, clock)
        config = server_config(settings, front)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        ready.set_result((ledger, partial(loop.call_soon_threadsafe, stopped.set)))
        await stopped.wait()
        # uvicorn's own way out, without the tenths of a second it sleeps on it.
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        async with asyncio.timeout(WAIT_SECONDS):
            while server.server_state.connections or server.server_state.tasks:
                await asyncio.sleep(0)
        if house is not None:
            house.close()
        await ledger.close()

    def main() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=main)
    address = listener.getsockname()
    thread.start()
    ledger, stop = ready.result(WAIT_SECONDS)
    try:
        with plain_client(f"http://127.0.0.1:{address[1]}") as client:
            yield ServiceThread(client, address, clock, ledger, failures)
    finally:
        stop()
        thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
