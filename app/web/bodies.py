"""How many bytes of bodies a process holds at a time, whoever sends them.

Each body has its own bound, but a client may begin one on every connection it has, and wait. A body
that is not larger than a single transaction's may be is not counted: connections bound those. Any other
takes its bytes from what there is in common: all that its head declares, before the first has come, or
what has come of it where nothing was declared. They are given back when it has been answered.
"""

from typing import Final

from app.web.answers import Code, Problem, unavailable
from app.web.body import BODY_BYTES_MAX

# Sixteen batches of the largest kind.
BODIES_BYTES_MAX: Final = 128 * 2**20

_NO_ROOM: Final = unavailable(
    Code.NOT_READY, "Not ready: there are too many large bodies; nothing of this request was kept"
)


class Bodies:
    """The bound of one process's larger bodies."""

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self.free_bytes = bytes_max


class Share:
    """What the requests of one connection have of it."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._sizes_bytes: dict[object, int] = {}

    def check(self, body_bytes: int) -> None:
        """Whether there is room for a body that is so long. Raises Problem."""
        if body_bytes > BODY_BYTES_MAX and body_bytes > self._bodies.free_bytes:
            raise Problem(_NO_ROOM)

    def reserve(self, request: object, body_bytes: int) -> None:
        """Take as much as the body of a request is long, less what it has already. Raises Problem."""
        if body_bytes <= BODY_BYTES_MAX:
            return
        more_bytes = body_bytes - self._sizes_bytes.get(request, 0)
        if more_bytes <= 0:
            return
        if more_bytes > self._bodies.free_bytes:
            raise Problem(_NO_ROOM)
        self._bodies.free_bytes -= more_bytes
        self._sizes_bytes[request] = body_bytes

    def give_back(self, request: object) -> None:
        """Give back what a request has, if anything."""
        self._bodies.free_bytes += self._sizes_bytes.pop(request, 0)

    def give_all_back(self) -> None:
        """Give back what all of them have."""
        self._bodies.free_bytes += sum(self._sizes_bytes.values())
        self._sizes_bytes.clear()
