"""`python -m app.server.front`: one of several processes that have connections; started by the back.

It keeps nothing. What it counts is a copy of what the back has counted, and whatever else it is asked it
hands on. It lives no longer than the back, and not a moment longer than it may be believed.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import msgspec
import uvicorn
import uvloop

from app.environment import read_settings
from app.ledger.mirror import Mirror
from app.main import build_front, build_mirror
from app.server.hearing import Hearing
from app.server.lag import LoopLag
from app.server.link import Word
from app.server.logs import configure_logs
from app.server.office import BackOffice
from app.server.serve import EXIT_FAILURE, EXIT_OK, Server, make_room, server_config
from app.settings import Settings
from app.web.counts import Counts

# A front makes and drops some objects for each request, hardly any of which need a collector to be
# found. With the usual 700 it takes a third of a request's time: most of what it looks at is modules.
_GARBAGE_OBJECTS_MAX: Final = 10_000


def main() -> int:
    """Serve until told to stop; the exit status. The arguments are file descriptors."""
    socket_number, pipe, listener_number = map(int, sys.argv[1:])
    settings = read_settings(os.environ)
    configure_logs(settings.log_level)
    share = max(settings.connections_max // settings.workers, 1)
    settings = msgspec.structs.replace(settings, connections_max=make_room(share))
    link = socket.socket(fileno=socket_number)
    listener = socket.socket(fileno=listener_number)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, link, pipe, listener))


async def _serve(settings: Settings, link: socket.socket, pipe: int, listener: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    counts = Counts()
    _, office = await loop.create_unix_connection(lambda: BackOffice(_end_at_once, counts), sock=link)
    heard_all = asyncio.Event()
    mirror, hearing = _build_mirror(settings, office, pipe, heard_all.set)
    office.say(Word.HEARING)
    front = build_front(settings, office, mirror, counts)
    server = _Server(server_config(settings, front), front.end_streams, lambda: office.say(Word.SERVING))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    heard = loop.create_task(heard_all.wait())
    await asyncio.wait((heard, server.stopping), return_when=asyncio.FIRST_COMPLETED)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_OBJECTS_MAX)
    LoopLag(counts.lag)
    if heard.done():
        await server.serve(sockets=[listener])
    hearing.close()
    office.close()
    return EXIT_OK


def _build_mirror(
    settings: Settings, office: BackOffice, pipe: int, on_whole: Callable[[], None]
) -> tuple[Mirror, Hearing]:
    mirror = build_mirror(settings, lambda: hearing.catch_up(), office.note_rewind)
    hearing = Hearing(pipe, mirror, on_whole, _end_at_once)
    return mirror, hearing


class _Server(Server):
    """Tells the back that its door is open, which says so for all."""

    def __init__(
        self,
        config: uvicorn.Config,
        end_streams: Callable[[], None],
        on_serving: Callable[[], None],
    ) -> None:
        super().__init__(config, end_streams)
        self._on_serving = on_serving

    def note_serving(self, listener: socket.socket) -> None:
        """Pass it on."""
        self._on_serving()


def _end_at_once() -> None:
    """End without another answer: nobody would stand behind it."""
    os._exit(EXIT_FAILURE)


if __name__ == "__main__":
    sys.exit(main())
