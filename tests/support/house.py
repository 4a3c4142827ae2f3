"""A back and its fronts in one loop, joined by the sockets and pipes that join processes."""

import asyncio
import os
import socket
from collections.abc import Callable

import msgspec

from app.ledger.mirror import Mirror
from app.main import Back, Front, build_front, build_mirror
from app.server.desk import Desk
from app.server.gathering import Gathering
from app.server.hearing import Hearing
from app.server.office import BackOffice
from app.server.telling import Line, Telling
from app.settings import Settings
from app.web.counts import Counts
from app.web.forward import Backroom


class Joined(msgspec.Struct):
    """A front, and both ends of what joins it to the back."""

    desk: Desk
    line: Line
    office: BackOffice
    hearing: Hearing
    mirror: Mirror


class House:
    """A back whose ledger is open."""

    def __init__(self, back: Back) -> None:
        self._back = back
        self.joined: list[Joined] = []
        self.cut_off: list[str] = []
        """Why fronts were cut off."""
        self.telling = Telling(back.ledger, self._release)
        self.gathering = Gathering(back.counts)
        back.metrics.gather = self.gathering.gather

    async def add_front(self, settings: Settings, now_ms: Callable[[], int]) -> Front:
        """One more front, that has heard all there is."""
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        reading, writing = os.pipe()
        heard_all = asyncio.Event()
        desk = Desk(
            self._back.ingest,
            Backroom(self._back.handlers, self._back.counts),
            self.telling.hurry,
            lambda _: None,
            self._back.ledger.note_clock,
            lambda: None,
            self.cut_off.append,
        )
        await loop.create_unix_connection(lambda: desk, sock=near)
        counts = Counts()
        office = BackOffice(lambda: None, counts)
        await loop.create_unix_connection(lambda: office, sock=far)
        mirror = build_mirror(settings, lambda: hearing.catch_up(), office.note_rewind, now_ms)
        hearing = Hearing(reading, mirror, heard_all.set, lambda: None)
        line = Line(writing, self.cut_off.append)
        self.gathering.join(len(self.joined), desk)
        self.joined.append(Joined(desk, line, office, hearing, mirror))
        self.telling.join(line)
        await heard_all.wait()
        return build_front(settings, office, mirror, counts, now_ms)

    def close(self) -> None:
        """Take it apart."""
        for each in self.joined:
            each.hearing.close()
            self.telling.leave(each.line)
            each.office.close()
            each.desk.close()

    def _release(self) -> None:
        for each in self.joined:
            each.desk.release()
